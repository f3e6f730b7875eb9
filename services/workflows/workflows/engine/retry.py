"""How often a step's outside call is tried, and how long between tries."""

import random
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from workflows.engine.durations import parse_duration

MAX_BACKOFF = timedelta(minutes=5)


def _checked(text: str) -> str:
    if parse_duration(text) > MAX_BACKOFF:
        raise ValueError("a backoff begins with at most 5m")
    return text


class RetryPolicy(BaseModel):
    """`attempts` in all; the pause begins at `backoff` and doubles up to five minutes, each shortened at random by up to a fifth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(ge=1, le=20)
    backoff: Annotated[str, AfterValidator(_checked)] = "1s"

    def delay_seconds(self, failed_attempts: int, asked_for: float | None = None) -> float | None:
        """Seconds until the next try after so many failed ones, None if there is no other. `asked_for` is a Retry-After."""
        if failed_attempts >= self.attempts:
            return None
        first = parse_duration(self.backoff).total_seconds()
        delay = min(first * 2.0 ** (failed_attempts - 1), MAX_BACKOFF.total_seconds())
        jittered = delay * random.uniform(0.8, 1.0)  # noqa: S311 - spreads retries, guards nothing
        return max(jittered, min(asked_for or 0, 3600))
