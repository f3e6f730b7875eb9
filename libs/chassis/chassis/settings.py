"""Settings that every service process has. A service subclasses this and sets its own prefix; secrets have no defaults."""

from typing import ClassVar, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """One frozen object per process, read from the environment. Units are in the names."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    service: ClassVar[str]
    """The service's name in URLs, queues, event sources and as client id: `auth`, `leads`, `workflows`, `crm-sync`."""

    host: str = "127.0.0.1"
    port: int
    internal_url: str
    """The gateway's internal listener: where services reach each other."""
    database_url: SecretStr
    database_pool_size: int = Field(default=5, ge=2, le=50)
    broker_url: SecretStr
    cache_url: SecretStr
    service_client_secret: SecretStr
    outbound_allowed_hosts: str = ""
    """`host:port` pairs, comma separated, that outbound calls may reach although they are private or not HTTPS."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_seconds: float = Field(default=15, gt=0)
    request_deadline_seconds: float = Field(default=10, gt=0)
    body_limit_bytes: int = Field(default=1_048_576, gt=0)
    jwks_refresh_seconds: float = Field(default=30, gt=0)
    revocation_poll_seconds: float = Field(default=2, gt=0)

    @property
    def source(self) -> str:
        """The `source` attribute of this service's events."""
        return f"/services/{self.service}"
