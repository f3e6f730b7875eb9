"""The first workspace and its administrator: made once, announced, and never again."""

import asyncio
import json
from dataclasses import asdict, replace

import orjson
import pytest

from auth.seed import SeedRefused, main, read_administrator, seed
from contracts.validation import problems

EMAIL, PASSWORD = "Admin@Example.com", "a generated password"


async def test_the_seed_makes_workspace_administrator_and_event_once(
    own_settings, start, own_rows, as_environment, monkeypatch, capsys
):
    as_environment(own_settings)
    monkeypatch.setenv("ADMIN_EMAIL", EMAIL)
    monkeypatch.setenv("ADMIN_PASSWORD", PASSWORD)
    assert await asyncio.to_thread(main) == 0
    made = json.loads(capsys.readouterr().out)
    assert (set(made), made["created"]) == ({"workspace_id", "user_id", "created"}, True)
    again = await seed(own_settings.database_url.get_secret_value(), "other@example.com", "another password")
    assert asdict(again) == made | {"created": False}
    [record] = await own_rows.fetch("SELECT body, claimed_until <= now() AS free FROM outbox")
    event = orjson.loads(record["body"])
    assert problems(event) == []
    assert (event["type"], event["subject"], event["workspaceid"]) == (
        "user.created",
        made["user_id"],
        made["workspace_id"],
    )
    # Whoever seeded is gone: any relay may publish it now.
    assert record["free"]
    replica = await start(own_settings)
    async with replica.client() as client:
        answer = await client.post("/api/auth/login", json={"email": "admin@example.com", "password": PASSWORD})
    assert (answer.status_code, answer.json()["user"]["role"]) == (200, "admin")


async def test_what_became_of_the_administrator_is_not_undone(own_settings, own_rows):
    dsn = own_settings.database_url.get_secret_value()
    made = await seed(dsn, "admin@example.com", PASSWORD)
    await own_rows.execute("UPDATE users SET email = 'renamed@example.com', active = false")
    again = await seed(dsn, "admin@example.com", PASSWORD)
    assert again == replace(made, created=False)
    assert await own_rows.fetchval("SELECT count(*) FROM users") == 1


async def test_two_seeds_at_once_make_one_workspace(own_settings, own_rows):
    dsn = own_settings.database_url.get_secret_value()
    made = await asyncio.gather(*(seed(dsn, "admin@example.com", PASSWORD) for _ in range(3)))
    assert sorted(each.created for each in made) == [False, False, True]
    assert len({each.workspace_id for each in made}) == 1
    assert await own_rows.fetchval("SELECT count(*) FROM workspaces") == 1


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "ADMIN_EMAIL"),
        ({"ADMIN_EMAIL": "no address", "ADMIN_PASSWORD": PASSWORD}, "ADMIN_EMAIL"),
        ({"ADMIN_EMAIL": EMAIL}, "ADMIN_PASSWORD"),
        ({"ADMIN_EMAIL": EMAIL, "ADMIN_PASSWORD": "short"}, "ADMIN_PASSWORD"),
        ({"ADMIN_EMAIL": EMAIL, "ADMIN_PASSWORD": "x" * 257}, "ADMIN_PASSWORD"),
    ],
)
def test_an_unfit_administrator_is_refused(environment, complaint):
    with pytest.raises(SeedRefused, match=complaint):
        read_administrator(environment)


def test_a_refused_seed_says_why_in_one_line(capsys, monkeypatch):
    monkeypatch.setenv("ADMIN_EMAIL", EMAIL)
    monkeypatch.setenv("ADMIN_PASSWORD", "short")
    assert main() == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "ADMIN_PASSWORD" in printed.err
