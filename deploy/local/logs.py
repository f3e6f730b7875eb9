"""`make logs`: the processes' logs as they are written."""

import os

from deploy.local.errors import Refused
from deploy.local.settings import Settings

LINES_BEFORE = 20


def follow(settings: Settings, service: str | None) -> None:
    """Becomes `tail -F` over all logs, or over those of one service's replicas. Refused when there are none."""
    names = sorted(path.name for path in settings.logs.glob("*.log"))
    if service:
        names = [name for name in names if _is_of(name.removesuffix(".log"), service)]
    if not names:
        what = f"of {service} " if service else ""
        known = sorted({path.stem for path in settings.logs.glob("*.log")})
        raise Refused(f"there are no logs {what}in {settings.logs}; there are: {', '.join(known) or 'none yet'}")
    os.chdir(settings.logs)
    os.execvp("tail", ["tail", "-n", str(LINES_BEFORE), "-F", *names])  # noqa: S606 -- it becomes tail, there is no shell to need


def _is_of(name: str, service: str) -> bool:
    """`leads` means leads-1, leads-2, …, not leads-worker-1."""
    return name == service or name.removeprefix(f"{service}-").isdecimal()
