"""Creating leads over HTTP."""

import asyncio
import json
from typing import Any

import httpx2
import pytest

ADA = {
    "email": "Ada@Example.COM",
    "phone": "(415) 555-0100",
    "first_name": " Ada ",
    "last_name": "Lovelace",
    "company": "Analytical Engines",
    "title": "",
    "score": 70,
    "tags": ["vip", "vip", "london"],
    "custom": {"plan": "pro", "seats": 3, "nothing": None},
    "consent": {"email": True},
}


async def test_a_created_lead_is_answered_normalised_and_can_be_read(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/api/leads", json=ADA)
    assert answer.status_code == 201, answer.text
    lead = answer.json()
    assert lead | ADA | {"title": None, "first_name": "Ada"} == lead | ADA | {"title": None, "first_name": "Ada"}
    assert lead["email"] == "Ada@example.com"
    assert lead["phone"] == "+14155550100"
    assert lead["first_name"] == "Ada"
    assert lead["title"] is None
    assert lead["tags"] == ["vip", "london"]
    assert lead["custom"] == {"plan": "pro", "seats": 3}
    assert lead["stage"] == "new"
    assert lead["version"] == 1
    assert lead["external_ids"] == {}
    assert lead["created_at"] == lead["updated_at"]
    assert answer.headers["location"] == f"/api/leads/{lead['id']}"
    assert answer.headers["etag"] == '"1.1"'
    read = await api.get(answer.headers["location"])
    assert read.status_code == 200
    assert read.content == answer.content
    assert read.headers["etag"] == '"1.1"'
