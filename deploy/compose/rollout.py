"""`make rollout service=leads`: every container of a service is replaced, one generation by the next, and no request fails.

New containers start beside the old ones and take requests when they are ready; then the old ones drain, one after the other.
"""

import time

from deploy.compose.docker import Container, compose, containers, stop
from deploy.local.errors import Refused
from deploy.local.progress import step

SERVICES = ("auth", "leads", "leads-worker", "workflows", "workflows-worker", "crm-sync", "crm-sync-worker")
READY_SECONDS = 120


def rollout(service: str) -> None:
    """Refused when there is nothing to replace, or when the new containers do not get well: they are removed then."""
    if service not in SERVICES:
        raise Refused(f"service={service} can not be rolled out: choose one of {', '.join(SERVICES)}")
    old = containers(service)
    if not old:
        raise Refused(f"{service} does not run: `make up` first")
    with step(f"Starting {len(old)} new of {service}"):
        _add(service, 2 * len(old))
        new = [one for one in containers(service) if one.id not in {each.id for each in old}]
        _wait_until_well(service, new)
    with step(f"Draining {len(old)} old of {service}"):
        for one in old:
            stop(one)


def _add(service: str, number: int) -> None:
    """Start containers until there are so many; those that run are left alone. Returns before the new ones are ready.

    With its dependencies: without them Compose takes the containers for others, and replaces them at the next `up`.
    """
    compose("up", "--detach", "--no-recreate", "--scale", f"{service}={number}", service)


def _wait_until_well(service: str, wanted: list[Container]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        now = {one.id: one for one in containers(service)}
        if all(one.id in now and now[one.id].is_well for one in wanted):
            return
        if time.monotonic() > deadline:
            for one in wanted:
                stop(one)
            raise Refused(
                f"the new containers of {service} did not get ready in {READY_SECONDS} s and were removed; the old ones go on"
            )
        time.sleep(0.5)
