"""A receiver of webhooks signed as Standard Webhooks prescribes: verifies, records, and answers as it was told.

Source: standardwebhooks.com; headers webhook-id, webhook-timestamp and webhook-signature.
"""

import asyncio
import json
import time
from typing import Annotated, Any

from pydantic import Field
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.control import parsed, refused
from simulators.faults import Seconds, Strict
from simulators.server import Dropped
from simulators.storage import Row, Storage


class PlannedAnswer(Strict):
    """How the next `times` deliveries are answered (null: all from here on)."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    body: Any = None
    headers: dict[str, str] = Field(default_factory=dict)
    delay_seconds: Seconds = 0.0
    drop: bool = False  # recorded, then the connection is reset instead of an answer
    times: Annotated[int, Field(ge=1)] | None = 1


class Endpoint(Strict):
    """One receiver: its secret (whsec_…; null: the process's own), and its answers in their order, then 200 for ever."""

    secret: str | None = None
    answers: list[PlannedAnswer] = Field(default_factory=list)


class WebhookReceiver:
    def __init__(self, storage: Storage, default_secret: str | None) -> None:
        self._storage = storage
        self._default_secret = default_secret

    def routes(self) -> list[Route]:
        return [
            Route("/webhooks/{name}", self.receive, methods=["POST"]),
            Route("/_control/webhooks", self.list_deliveries),
            Route("/_control/webhooks", self.clear, methods=["DELETE"]),
            Route("/_control/webhooks/{name}", self.configure, methods=["PUT"]),
        ]

    async def receive(self, request: Request) -> Response:
        """A delivery whose signature is wrong is recorded too, and answered 401."""
        name, body = request.path_params["name"], await request.body()
        endpoint = self._endpoint(name)
        is_verified = _is_verified(endpoint.secret or self._default_secret, request, body)
        planned = PlannedAnswer(status=401) if is_verified is False else self._next_answer(name, endpoint)
        self._record(name, request, body, is_verified, planned)
        await asyncio.sleep(planned.delay_seconds)
        if planned.drop:
            return Dropped()
        content = planned.body if planned.body is not None else {"received": planned.status < 300}
        return JSONResponse(content, planned.status, planned.headers)

    async def list_deliveries(self, request: Request) -> Response:
        """One entry for each webhook-id (of one receiver with `?name=`), with every time it came."""
        rows = self._storage.all(
            "SELECT * FROM deliveries WHERE (? IS NULL OR name = ?) ORDER BY seq",
            request.query_params.get("name"),
            request.query_params.get("name"),
        )
        return JSONResponse({"deliveries": _grouped(rows)})

    async def configure(self, request: Request) -> Response:
        endpoint = await parsed(request, Endpoint)
        if endpoint.secret is not None and not endpoint.secret.startswith("whsec_"):
            return refused(422, "a secret starts with whsec_")
        self._save(request.path_params["name"], endpoint)
        return JSONResponse(endpoint.model_dump())

    async def clear(self, request: Request) -> Response:
        """Forget all deliveries and receivers."""
        with self._storage.transaction():
            self._storage.execute("DELETE FROM deliveries")
            self._storage.execute("DELETE FROM endpoints")
        return Response(status_code=204)

    def _endpoint(self, name: str) -> Endpoint:
        row = self._storage.one("SELECT secret, answers FROM endpoints WHERE name = ?", name)
        if row is None:
            return Endpoint()
        return Endpoint(secret=row["secret"], answers=json.loads(row["answers"]))

    def _next_answer(self, name: str, endpoint: Endpoint) -> PlannedAnswer:
        """Take one use of the first planned answer."""
        if not endpoint.answers:
            return PlannedAnswer()
        first, *later = endpoint.answers
        if first.times is not None:
            left = [first.model_copy(update={"times": first.times - 1})] if first.times > 1 else []
            self._save(name, Endpoint(secret=endpoint.secret, answers=[*left, *later]))
        return first

    def _save(self, name: str, endpoint: Endpoint) -> None:
        answers = json.dumps([answer.model_dump() for answer in endpoint.answers])
        self._storage.execute("INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?)", name, endpoint.secret, answers)

    def _record(
        self, name: str, request: Request, body: bytes, is_verified: bool | None, planned: PlannedAnswer
    ) -> None:
        self._storage.execute(
            "INSERT INTO deliveries (at, name, webhook_id, is_verified, headers, body, status, outcome)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            time.time(),
            name,
            request.headers.get("webhook-id"),
            is_verified,
            json.dumps(dict(request.headers)),
            body.decode(errors="replace"),
            planned.status,
            "dropped" if planned.drop else "answered",
        )


def _is_verified(secret: str | None, request: Request, body: bytes) -> bool | None:
    """None without a secret to verify against."""
    if secret is None:
        return None
    try:
        Webhook(secret).verify(body, dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError: a signature that is not even base64 or UTF-8
        return False
    return True


def _grouped(rows: list[Row]) -> list[dict[str, Any]]:
    deliveries: dict[tuple[str, str | int], dict[str, Any]] = {}
    for row in rows:
        key = (row["name"], row["webhook_id"] or row["seq"])
        delivery = deliveries.setdefault(
            key,
            {
                "name": row["name"],
                "webhook_id": row["webhook_id"],
                "body": row["body"],
                "headers": json.loads(row["headers"]),
                "count": 0,
                "attempts": [],
            },
        )
        delivery["count"] += 1
        verified = None if row["is_verified"] is None else bool(row["is_verified"])
        attempt = {"at": row["at"], "verified": verified, "status": row["status"], "outcome": row["outcome"]}
        delivery["attempts"].append(attempt)
        if row["body"] != delivery["body"]:
            attempt["body"] = row["body"]  # an id that comes with another body is worth seeing
    return list(deliveries.values())
