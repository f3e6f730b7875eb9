"""What the environment tells crm-sync, prefix CRM_SYNC_."""

from typing import ClassVar, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class CrmSyncSettings(ServiceSettings):
    """Read by the HTTP process, the worker and the key rotation alike."""

    model_config = SettingsConfigDict(env_prefix="CRM_SYNC_")
    service: ClassVar[str] = "crm-sync"

    credential_keys: SecretStr
    """`id:base64 of 32 bytes`, comma separated, the current one first; older ones only open."""
    hubspot_base_url: str = "https://api.hubapi.com"
    hubspot_api_version: str = Field(default="2026-03", pattern=r"^(20\d\d-\d\d(-beta)?|v3)$")
    """A dated version of HubSpot's API, or v3."""
    call_timeout_seconds: float = Field(default=10, gt=0, le=10)
    """How long we wait for a CRM's answer."""
    vendor_timeout_seconds: float = Field(default=30, gt=0)
    """How long a CRM may go on with a request whose answer we did not get: nothing is sent again for that lead before."""
    lease_seconds: float = Field(default=60, gt=0)
    """How long a worker holds the leads it is sending; renewed while it lives."""
    poll_seconds: float = Field(default=0.5, gt=0)
    """How often a worker looks for leads whose time has come. New wishes wake it at once."""
    parallel_connections: int = Field(default=8, ge=1)
    """How many connections one worker serves at the same time."""
    pause_base_seconds: float = Field(default=1, gt=0)
    pause_cap_seconds: float = Field(default=300, gt=0)
    """A connection in trouble rests for the base, twice that, four times, … up to the cap."""

    @model_validator(mode="after")
    def _lease_outlives_call(self) -> Self:
        # A call starts with at least a third of the lease plus its own time-out left. Whoever takes a dead worker's lead over
        # must come after the CRM has given up on that worker's request.
        if self.lease_seconds / 3 + self.call_timeout_seconds < self.vendor_timeout_seconds:
            raise ValueError("lease_seconds must be at least 3 * (vendor_timeout_seconds - call_timeout_seconds)")
        if self.call_timeout_seconds >= self.lease_seconds * 2 / 3:
            raise ValueError("call_timeout_seconds must be less than two thirds of lease_seconds")
        return self
