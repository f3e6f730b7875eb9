"""The measured figures of this machine: how long starts took, memory at rest, lead-to-CRM-id."""

from typing import Any

from deploy.local.settings import Settings
from deploy.local.stored import read_json, write_json

FIGURES_FILE = "figures.json"


def lines(settings: Settings) -> list[str]:
    return []


def keep(settings: Settings, **figures: Any) -> None:
    """Adds figures to those that are kept."""
    path = settings.state / FIGURES_FILE
    write_json(path, {**read_json(path), **figures})
