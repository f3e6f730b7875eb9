"""The main job in front of the user: one lead through the gateway to its CRM id, hop by hop, from the lead's own timeline."""

import time
from datetime import datetime
from typing import Any, NamedTuple

from deploy.local import samples
from deploy.local.api import Api
from deploy.local.progress import say, step

LONGEST_SECONDS = 15
POLL_SECONDS = 0.02
ENDED = frozenset({"completed", "failed", "cancelled", "suspended"})


class Hop(NamedTuple):
    """Something that happened to the lead, in milliseconds since its request was sent."""

    ms: float
    text: str


class Journey:
    """Sends a lead and follows it until it is in the CRM in its newest version and its workflow has ended."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._hops: list[Hop] = []
        self._sent = 0.0
        self._lead_id = ""
        self._entries: list[dict[str, Any]] = []

    def show(self) -> bool:
        """Prints the way; False when the lead did not arrive in time (a user may have paused the connection)."""
        with step("Sending a lead through the gateway"):
            self._send()
            arrived = self._follow()
        self._hops += [hop for entry in self._entries for hop in self._read(entry)]
        self._hops += self._matches()
        say()
        say(f"A lead's way, in milliseconds since the request ({self._lead_id}):")
        for hop in sorted(self._hops):
            say(f"{hop.ms:9.1f}  {hop.text}")
        return arrived

    def _send(self) -> None:
        lead = samples.lead()
        self._sent = time.time()
        self._hops.append(Hop(0, f"POST /api/leads: {lead['first_name']} {lead['last_name']}, score {lead['score']}"))
        created = self._api.send("POST", "/api/leads", lead)
        self._lead_id = created["id"]
        self._note(f"accepted: 201, version {created['version']}, stored together with its event")

    def _follow(self) -> bool:
        deadline = time.monotonic() + LONGEST_SECONDS
        shown = False
        while time.monotonic() < deadline:
            lead = self._api.get(f"/api/leads/{self._lead_id}")
            if lead["external_ids"] and not shown:
                shown = True
                ids = ", ".join(f"{external} ({connection})" for connection, external in lead["external_ids"].items())
                self._note(f"visible in GET /api/leads/{{id}}: external_ids {ids}")
            self._entries = self._api.get(f"/api/leads/{self._lead_id}/timeline?limit=200")["items"]
            if shown and self._is_settled(lead["version"]):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _is_settled(self, version: int) -> bool:
        ended = any(entry["kind"] == "run" and entry["state"] in ENDED for entry in self._entries)
        return ended and any(entry["kind"] == "crm" and entry["version"] >= version for entry in self._entries)

    def _note(self, text: str) -> None:
        self._hops.append(Hop((time.time() - self._sent) * 1000, text))

    def _since(self, moment: str) -> float:
        return (datetime.fromisoformat(moment).timestamp() - self._sent) * 1000

    def _read(self, entry: dict[str, Any]) -> list[Hop]:
        """The hops that an entry of the timeline tells of."""
        match entry["kind"]:
            case "event" if entry["published_at"] and entry["type"].startswith("lead."):
                return [Hop(self._since(entry["published_at"]), f"event {entry['type']} published")]
            case "step":
                tries = f", {entry['attempts']} attempts" if entry["attempts"] > 1 else ""
                words = f"step {entry['step_id']} ({entry['type']}): {entry['outcome']}{tries}"
                return [Hop(self._since(entry["at"]), words)]
            case "run":
                return [Hop(self._since(entry["at"]), f"workflow run {entry['state']}")]
            case "crm_attempt":
                answer = f"{entry['outcome']}, status {entry['status']}, vendor's request id {entry['request_id']}"
                return [
                    Hop(
                        self._since(entry["at"]),
                        f"CRM request ({entry['vendor']}, version {entry['version']}): {answer}",
                    )
                ]
            case "crm":
                words = f"CRM id {entry['external_id']}: {entry['state']}, version {entry['version']}"
                return [Hop(self._since(entry["at"]), words)]
            case _:
                return []

    def _matches(self) -> list[Hop]:
        """When each workflow took the lead, from its run."""
        runs = {entry["run_id"]: entry["workflow_name"] for entry in self._entries if entry["kind"] == "run"}
        return [
            Hop(self._since(self._api.get(f"/api/runs/{run_id}")["created_at"]), f"workflow “{name}” matched: {run_id}")
            for run_id, name in runs.items()
        ]
