"""Settings of both processes of this service, from the environment with the prefix WORKFLOWS_."""

from typing import ClassVar

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class WorkflowsSettings(ServiceSettings):
    """What the chassis needs, the keys that seal secrets in definitions, and how the worker goes about its work."""

    model_config = SettingsConfigDict(env_prefix="WORKFLOWS_", frozen=True, extra="ignore")

    service: ClassVar[str] = "workflows"

    secret_keys: SecretStr
    """`id:base64 of 32 bytes`, comma separated, the current key first."""
    run_concurrency: int = Field(default=16, ge=1, le=200)
    lease_seconds: float = Field(default=30, ge=1)
    """A call takes at most 10 s, which two thirds of this must hold."""
    poll_seconds: float = Field(default=0.5, gt=0)
    timer_sweep_seconds: float = Field(default=1, gt=0)
    timer_batch: int = Field(default=100, ge=1)
    timer_workspace_batch: int = Field(default=25, ge=1)
    timer_late_seconds: float = Field(default=60, gt=0)
    """A timer later than this was missed: the system was down."""
    timer_spread_seconds: float = Field(default=60, ge=0)
    """Missed timers are spread over this time."""
