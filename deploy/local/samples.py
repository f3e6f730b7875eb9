"""The demo's connection, workflow and lead, as a user would send them to the API."""

from typing import Any
from uuid import uuid4

SIMULATED_TOKEN = "pat-sim-1"  # noqa: S105 -- opens portal 1 of the simulator, nothing else


def connection() -> dict[str, Any]:
    """HubSpot, kept in step with every lead."""
    return {
        "name": "HubSpot (simulated)",
        "vendor": "hubspot",
        "mode": "all",
        "credentials": {"access_token": SIMULATED_TOKEN},
    }


def workflow(*, connection_id: str, owner_id: str, receiver: str, signing_secret: str) -> dict[str, Any]:
    """Good new leads get an owner and a stage, a webhook receiver hears of them, the CRM gets them at once."""
    return {
        "name": "Welcome good leads",
        "trigger": {"type": "event", "event": "lead.created", "condition": "lead.score >= 50"},
        "steps": [
            {"id": "assign", "type": "assign_owner", "users": [owner_id]},
            {"id": "qualify", "type": "update_lead", "set": {"stage": "qualified"}},
            {
                "id": "notify",
                "type": "http_request",
                "method": "POST",
                "url": receiver,
                "sign_with": {"secret": signing_secret},
                "body": {"lead": "{{ lead.id }}", "email": "{{ lead.email }}", "score": "{{ lead.score }}"},
                "on_unknown": "retry",
            },
            {"id": "sync", "type": "sync_to_crm", "connection_id": connection_id},
        ],
    }


def lead() -> dict[str, Any]:
    """A good lead that is not there yet."""
    return {
        "email": f"grace.hopper.{uuid4().hex[:8]}@example.com",
        "first_name": "Grace",
        "last_name": "Hopper",
        "company": "Example Navy",
        "source": "make run",
        "score": 80,
    }
