"""What verifiers ask of auth, and the health of the whole system."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from auth.routes.openapi import example, problems
from auth.routes.state import SystemHealthOf, VerificationOf

router = APIRouter(tags=["auth"])

# Shorter than the time between a key's publication and its first signature, by more than a verifier's own period.
_KEY_HEADERS = {"Cache-Control": "public, max-age=30"}
_KEYS_EXAMPLE = {
    "keys": [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            "use": "sig",
            "alg": "EdDSA",
        }
    ]
}
_HEALTH_EXAMPLE = {
    "status": "ok",
    "checked_at": "2026-11-25T08:30:00.123Z",
    "services": {
        "leads-1": {
            "status": "ok",
            "latency_ms": 3.2,
            "dependencies": {
                "postgresql": {"status": "ok", "latency_ms": 0.8, "outbox_waiting": 0},
                "rabbitmq": {"status": "ok", "latency_ms": 1.4, "queues": {"leads.timeline": 0}},
            },
        }
    },
}


@router.get(
    "/.well-known/jwks.json",
    operation_id="read_keys",
    summary="The keys that verify access tokens (RFC 7517)",
    responses={**example(200, _KEYS_EXAMPLE, "A JSON Web Key Set"), **problems()},
)
async def read_keys(verification: VerificationOf) -> Response:
    """Keys that sign now, will sign soon, or have signed a token that may still live. Fetch again for an unknown `kid`."""
    return JSONResponse(await verification.ring.document(), headers=_KEY_HEADERS)


@router.get("/internal/jwks.json", include_in_schema=False)
async def read_keys_internally(verification: VerificationOf) -> Response:
    return JSONResponse(await verification.ring.document())


@router.get("/internal/sessions/ended", include_in_schema=False)
async def list_ended_sessions(verification: VerificationOf) -> dict[str, Any]:
    ended = await verification.list_ended()
    return {"ended": [{"session_id": each.session_id, "until": each.until} for each in ended]}


@router.get(
    "/health/system",
    operation_id="read_system_health",
    summary="Every service and what it depends on (publicly at /health/detailed)",
    responses={
        **example(200, _HEALTH_EXAMPLE, "Everything works, or works without a part it can do without (`degraded`)"),
        503: {
            "description": "Something that is needed does not work",
            "content": {"application/json": {"example": _HEALTH_EXAMPLE | {"status": "failing"}}},
        },
    },
)
async def read_system_health(system_health: SystemHealthOf) -> Response:
    found = await system_health.check()
    return JSONResponse(found, status_code=503 if found["status"] == "failing" else 200)
