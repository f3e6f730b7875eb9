"""A small client of the system's own API, for the demo's content and its figures."""

import http.client
import json
import select
from typing import Any, Self

from deploy.local.errors import Refused

TIMEOUT_SECONDS = 30


class ApiRefused(Refused):
    """An answer that is no 2xx."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """The gateway as seen by one signed-in user, over one kept-alive connection that `with` closes."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        self._token: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def sign_in(self, email: str, password: str) -> None:
        """ApiRefused with 401 when auth does not take them."""
        answer = self.send("POST", "/api/auth/login", {"email": email, "password": password})
        self._token = answer["access_token"]

    def get(self, path: str) -> Any:
        """The JSON answer of a 2xx. ApiRefused otherwise."""
        return self.send("GET", path)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The JSON answer of a 2xx, None for an empty one. ApiRefused with the problem's words otherwise."""
        status, content = self.ask(method, path, body, **headers)
        if status >= 300:
            raise ApiRefused(status, f"{method} {path} was answered {status}: {_problem(content)}")
        return json.loads(content) if content else None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Status and body, whatever they are. Header names are written with underscores. Refused without an answer."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._token:
            fields["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            fields["Content-Type"] = "application/json"
        self._leave_closed_connection()
        try:
            self._connection.request(method, path, json.dumps(body) if body is not None else None, fields)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Refused(f"the gateway did not answer {method} {path}: {error}") from error

    def _leave_closed_connection(self) -> None:
        """An idle connection that has something to read was closed by the gateway: nothing may be sent on it any more."""
        socket = self._connection.sock
        if socket is not None and select.select([socket], [], [], 0)[0]:
            self._connection.close()


def _problem(content: bytes) -> str:
    """What a problem document says, or the start of what came instead."""
    try:
        problem = json.loads(content)
        return f"{problem['detail']} {problem.get('errors', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
