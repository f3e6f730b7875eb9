"""What the simulators are told by the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    port: int
    data_dir: Path
    host: str = "127.0.0.1"
    webhook_secret: str | None = None  # whsec_…; without one, deliveries are recorded unverified

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Raises KeyError naming the variable that is missing, ValueError for a port that is no number."""
        return cls(
            port=int(environment["SIMULATORS_PORT"]),
            data_dir=Path(environment["SIMULATORS_DATA_DIR"]),
            host=environment.get("SIMULATORS_HOST", "127.0.0.1"),
            webhook_secret=environment.get("SIMULATORS_WEBHOOK_SECRET") or None,
        )
