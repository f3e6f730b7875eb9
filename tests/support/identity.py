"""Access tokens for tests of one service, signed by a key made here: what auth would issue, without auth."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

SCOPES = {
    "viewer": "leads:read workflows:read crm:read",
    "agent": "leads:read workflows:read crm:read leads:write workflows:write",
    "admin": "leads:read workflows:read crm:read leads:write workflows:write crm:write admin",
}
SERVICE_SCOPES = "leads:read leads:write crm:read crm:write workflows:read"


class TestIdentity:
    """An `IdentitySource` and the issuer of its tokens."""

    __test__ = False

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.ended: list[dict[str, Any]] = []

    async def keys(self) -> Mapping[str, Any]:
        key = OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": "test-key", "alg": "EdDSA", "use": "sig"}]}

    async def ended_sessions(self) -> Sequence[Mapping[str, Any]]:
        return self.ended

    def end(self, session_id: str) -> None:
        """Put a session on the list of ended ones."""
        self.ended.append({"session_id": session_id, "until": time.time() + 900})

    def token(self, **claims: Any) -> str:
        """A signed token; `claims` replace the defaults, a claim given as None is left out."""
        now = int(time.time())
        values = {
            "iss": "automation-orchestrator",
            "aud": "automation-orchestrator",
            "sub": "user_1",
            "sid": "sess_1",
            "ws": "ws_1",
            "role": "admin",
            "scope": SCOPES["admin"],
            "iat": now,
            "exp": now + 900,
            **claims,
        }
        held = {name: value for name, value in values.items() if value is not None}
        return jwt.encode(held, self._key, algorithm="EdDSA", headers={"kid": "test-key"})

    def headers(self, *, role: str = "admin", workspace: str = "ws_1", **claims: Any) -> dict[str, str]:
        """Request headers of a user with `role` in `workspace`."""
        token = self.token(ws=workspace, role=role, scope=SCOPES[role], **claims)
        return {"Authorization": f"Bearer {token}"}

    def service_headers(self, service: str, *, workspace: str = "ws_1") -> dict[str, str]:
        """Request headers of a service acting in `workspace`."""
        token = self.token(sub=f"service:{service}", sid=None, role=None, scope=SERVICE_SCOPES, ws=workspace)
        return {"Authorization": f"Bearer {token}"}
