"""auth's settings, read from the environment with the prefix `AUTH_`."""

import hashlib
import json
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings

CLIENT_SECRET_LENGTH = 32


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="AUTH_", frozen=True, extra="ignore")

    service: ClassVar[str] = "auth"

    key_encryption_keys: SecretStr
    """`id:base64 of 32 bytes`, comma separated, the current one first: they seal the private signing keys."""
    client_secrets: SecretStr
    """`service:secret`, comma separated: who may ask for a service token."""
    health_targets: str = "{}"
    """Name -> base URL of every process that `/health/system` asks: a JSON object, or the path of a file that holds one
    (begins with `/`) and is read at each check, so that replicas may come and go."""
    access_token_seconds: int = Field(default=900, ge=60, le=3600)
    session_idle_seconds: int = Field(default=30 * 86_400, ge=3600)
    """A session that is not refreshed for this long is over."""
    rotation_grace_seconds: int = Field(default=30, ge=1, le=300)
    """How long after its rotation an old refresh token still yields a successor."""
    key_activation_seconds: int = Field(default=90, ge=1)
    """How long a new signing key is published before it signs."""
    key_reload_seconds: float = Field(default=5, gt=0)
    hash_threads: int = Field(default=2, ge=1, le=16)
    """Passwords hashed at the same time; each takes 19 MiB."""
    hash_waiting_limit: int = Field(default=128, ge=1)
    """Sign-ins that may wait for a hash; further ones are answered 503."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        known_everywhere = self.jwks_refresh_seconds + self.key_reload_seconds
        if self.key_activation_seconds <= known_everywhere:
            raise ValueError(
                "KEY_ACTIVATION_SECONDS must exceed JWKS_REFRESH_SECONDS + KEY_RELOAD_SECONDS: "
                "a key may sign only once every verifier has it"
            )
        self.clients()
        return self

    def clients(self) -> dict[str, str]:
        """Service name -> secret."""
        clients = {}
        for entry in self.client_secrets.get_secret_value().split(","):
            name, separator, secret = entry.strip().partition(":")
            if not separator or not name or len(secret) < CLIENT_SECRET_LENGTH:
                raise ValueError(
                    f"CLIENT_SECRETS: write service:secret, secrets of {CLIENT_SECRET_LENGTH} or more characters"
                )
            clients[name] = secret
        return clients

    @property
    def fingerprint_key(self) -> bytes:
        """What bodies that hold a password are fingerprinted under: not stored, so a fingerprint gives no password away."""
        current = self.key_encryption_keys.get_secret_value().partition(",")[0]
        return hashlib.sha256(b"fingerprint\0" + current.encode()).digest()

    def read_health_targets(self) -> dict[str, str]:
        """Name -> base URL; ValueError or OSError if there is no such object to read."""
        text = self.health_targets
        if text.startswith("/"):
            text = Path(text).read_text(encoding="utf-8")
        targets = json.loads(text)
        if not isinstance(targets, dict):
            raise ValueError("health targets must be a JSON object of name -> base URL")  # noqa: TRY004 - a wrong setting
        return {str(name): str(url) for name, url in targets.items()}
