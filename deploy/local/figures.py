"""The measured figures of this machine: how long starts took, memory at rest, how long a lead takes to its CRM id."""

import statistics
import time
import uuid
from typing import Any

from deploy.local import orphans
from deploy.local.api import Api
from deploy.local.control import Control
from deploy.local.errors import Refused
from deploy.local.memory import pss_bytes
from deploy.local.programs import System
from deploy.local.progress import say, step
from deploy.local.scale import refuse_unless_ready
from deploy.local.seeding import sign_in
from deploy.local.settings import Settings
from deploy.local.stored import read_json, write_json

FIGURES_FILE = "figures.json"
LEADS = 20
REST_SECONDS = 5
PAUSE_SECONDS = 0.25  # between two leads, so that each finds the system idle
POLL_SECONDS = 0.004
LONGEST_SECONDS = 10
MEGABYTE = 1_000_000


def measure(settings: Settings) -> None:
    """Measures memory at rest, then the lead's way; keeps and prints them. NoSupervisor when nothing runs."""
    control = Control(settings)
    refuse_unless_ready(control)
    settings = control.running_settings()
    with step(f"Measuring memory after {REST_SECONDS} s of rest"):
        time.sleep(REST_SECONDS)
        memory = pss_bytes(orphans.processes_of(settings.state, but=[settings.tests]))
    with step(f"Measuring {LEADS} leads to their CRM id, one after the other"), sign_in(System.of(settings)) as api:
        _lead_to_crm_ms(api)  # the first one opens connections
        times = sorted(_lead_to_crm_ms(api) for _ in range(LEADS))
    keep(
        settings,
        memory_at_rest_mb=round(memory / MEGABYTE),
        lead_to_crm_ms={"median": round(statistics.median(times)), "slowest": round(times[-1]), "leads": LEADS},
    )
    for line in lines(settings):
        say(line)


def keep(settings: Settings, **figures: Any) -> None:
    """Adds figures to those that are kept."""
    path = settings.state / FIGURES_FILE
    write_json(path, {**read_json(path), **figures})


def lines(settings: Settings) -> list[str]:
    """The figures beside what they should be at most; what was not measured yet says how to."""
    figures = read_json(settings.state / FIGURES_FILE)
    way = figures.get("lead_to_crm_ms")
    way_text = f"{way['median']} ms median of {way['leads']}, slowest {way['slowest']} ms" if way else "make figures"
    memory = figures.get("memory_at_rest_mb")
    return [
        f"  start, all there         {_seconds(figures, 'warm_start_seconds')}   (at most 25 s)",
        f"  start, from nothing      {_seconds(figures, 'cold_start_seconds')}   (at most 300 s)",
        f"  memory at rest           {f'{memory} MB' if memory else 'make figures'}   (at most 1000 MB)",
        f"  idle, lead to CRM id     {way_text}   (at most 150 ms)",
    ]


def _seconds(figures: dict[str, Any], name: str) -> str:
    return f"{figures[name]:.1f} s" if name in figures else "not seen yet"


def _lead_to_crm_ms(api: Api) -> float:
    """Milliseconds from sending a lead until `GET /api/leads/{id}` shows its id in the CRM."""
    time.sleep(PAUSE_SECONDS)
    body = {"email": f"figure-{uuid.uuid4().hex}@example.com", "last_name": "Figure", "score": 10}
    started = time.perf_counter()
    lead = api.send("POST", "/api/leads", body)
    while not api.get(f"/api/leads/{lead['id']}")["external_ids"]:
        if time.perf_counter() - started > LONGEST_SECONDS:
            raise Refused(
                f"{lead['id']} has no CRM id after {LONGEST_SECONDS} s: is the HubSpot connection there and active?"
            )
        time.sleep(POLL_SECONDS)
    return (time.perf_counter() - started) * 1000
