"""Runs that call the simulated webhook receiver."""

from chassis.ids import new_id
from tests.support.system import Client, RunningSystem

SECRET = "whsec_" + "MDEy" * 12


async def run_to_receiver(system: RunningSystem, client: Client, receiver: str, on_unknown: str) -> str:
    """Start a run whose only step calls the webhook receiver; its id."""
    answer = await client.post(
        "/api/workflows",
        {
            "name": new_id("call"),
            "trigger": {"type": "manual"},
            "steps": [
                {
                    "id": "call",
                    "type": "http_request",
                    "url": f"{system.simulator_url}/webhooks/{receiver}",
                    "body": {"lead": "{{ lead.id }}"},
                    "sign_with": {"secret": SECRET},
                    "on_unknown": on_unknown,
                }
            ],
            "start": {"lead_id": "lead-1"},
        },
    )
    assert answer.status_code == 201, answer.text
    status = (await client.get(f"/api/workflows/{answer.json()['id']}/status")).json()
    return str(status["latest_run"]["id"])
