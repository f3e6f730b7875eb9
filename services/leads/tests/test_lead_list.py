"""Listing leads: filters, search, order, paging."""

import asyncio
import base64
import json
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LEADS: list[dict[str, Any]] = [
    {"email": "ada@example.com", "first_name": "Ada", "last_name": "Lovelace", "company": "Analytical Engines",
     "stage": "new", "score": 90, "source": "web", "tags": ["vip", "uk"], "phone": "+442079460000"},
    {"email": "grace@navy.example.com", "first_name": "Grace", "last_name": "Hopper", "company": "US Navy",
     "stage": "contacted", "score": 80, "source": "fair", "tags": ["vip"], "owner_id": "user_2"},
    {"email": "alan_t@example.com", "first_name": "Alan", "last_name": "turing", "company": "100% Machines",
     "stage": "qualified", "score": 90, "source": "web", "tags": [], "owner_id": "user_1"},
    {"phone": "+14155550100", "first_name": "Zoë", "company": "analytical engines",
     "stage": "lost", "score": 0, "source": "phone", "tags": ["uk"]},
]  # fmt: skip
NAMES = ["ada", "grace", "alan", "zoe"]


@pytest.fixture
async def listed(api: httpx2.AsyncClient, add_user: Any) -> dict[str, str]:
    """The four leads' ids, created one after another, by name."""
    for user in ("user_1", "user_2"):
        await add_user(user)
    ids = {}
    for name, fields in zip(NAMES, LEADS, strict=True):
        answer = await api.post("/api/leads", json=fields)
        assert answer.status_code == 201, answer.text
        ids[name] = answer.json()["id"]
        await asyncio.sleep(0.002)
    return ids


async def names(api: httpx2.AsyncClient, query: str, ids: dict[str, str]) -> list[str]:
    answer = await api.get(f"/api/leads?{query}")
    assert answer.status_code == 200, answer.text
    by_id = {lead_id: name for name, lead_id in ids.items()}
    return [by_id[item["id"]] for item in answer.json()["items"]]


async def test_filters_and_search_find_what_they_say(
    api: httpx2.AsyncClient, listed: dict[str, str], subtests: pytest.Subtests
) -> None:
    alan = (await api.get(f"/api/leads/{listed['alan']}")).json()["created_at"].replace(":", "%3A")
    cases = {
        "": "zoe alan grace ada",
        "stage=new": "ada",
        "stage=new&stage=lost": "zoe ada",
        "source=web": "alan ada",
        "owner_id=user_2": "grace",
        "owner_id=user_1&owner_id=user_2": "alan grace",
        "owner_id=none": "zoe ada",
        "tag=vip": "grace ada",
        "tag=vip&tag=uk": "ada",
        "email=ADA@EXAMPLE.com": "ada",
        "email=eve@example.com": "",
        "phone=%2B14155550100": "zoe",
        "phone=+14155550100": "zoe",
        "phone=(415)%20555-0100": "zoe",
        "company=Analytical%20Engines": "zoe ada",
        "company=analytical": "",
        "score_min=80": "alan grace ada",
        "score_max=80": "zoe grace",
        "score_min=80&score_max=80": "grace",
        f"created_after={alan}": "zoe alan",
        f"created_before={alan}": "grace ada",
        f"updated_after={alan}": "zoe alan",
        f"updated_before={alan}": "grace ada",
        "q=lovelace": "ada",
        "q=LOVE": "ada",
        "q=ada%20lovelace": "ada",
        "q=lovelace%20ada": "ada",
        "q=navy.example": "grace",
        "q=engines": "zoe ada",
        "q=555-0100": "zoe",
        "q=%2B44": "ada",
        "q=100%25": "alan",
        "q=%25": "alan",
        "q=alan_t": "alan",
        "q=a_a": "",
        "q=zo%C3%AB": "zoe",
        "q=%5C": "",
        "q=nobody": "",
        "q=example.com&stage=new": "ada",
        "sort=created_at": "ada grace alan zoe",
        "sort=-updated_at": "zoe alan grace ada",
        "sort=last_name": "zoe grace ada alan",
        "sort=-last_name": "alan ada grace zoe",
        "sort=score": "zoe grace ada alan",
        "sort=-score": "alan ada grace zoe",
        "limit=2": "zoe alan",
    }
    for query, expected in cases.items():
        with subtests.test(query):
            assert await names(api, query, listed) == expected.split()


async def test_an_item_is_the_lead_as_it_is_read_alone(api: httpx2.AsyncClient, listed: dict[str, str]) -> None:
    await api.patch(
        f"/api/leads/{listed['ada']}", json={"custom": {"a": [1, {"b": None}], "c": "ü\n"}, "consent": {"x": True}}
    )
    items = (await api.get("/api/leads?sort=created_at")).json()["items"]
    for item, lead_id in zip(items, listed.values(), strict=True):
        alone = (await api.get(f"/api/leads/{lead_id}")).json()
        assert item == alone
        assert list(item) == list(alone)


async def test_a_cursor_goes_with_its_filters_and_order_only(api: httpx2.AsyncClient, listed: dict[str, str]) -> None:
    cursor = (await api.get("/api/leads?limit=1&stage=new&stage=lost&sort=score")).json()["next_cursor"]
    assert cursor is not None
    same = await api.get(f"/api/leads?limit=5&stage=new&stage=lost&sort=score&cursor={cursor}")
    assert same.status_code == 200
    for other in (
        "stage=new&sort=score",
        "stage=new&stage=lost&sort=-score",
        "stage=new&stage=lost&sort=score&q=a",
        "",
    ):
        answer = await api.get(f"/api/leads?{other}&cursor={cursor}")
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_cursor_that_was_made_up_is_400(api: httpx2.AsyncClient, subtests: pytest.Subtests) -> None:
    await api.post("/api/leads", json={"email": "a@example.com"})
    await api.post("/api/leads", json={"email": "b@example.com"})
    for sort, values in (
        ("score", ["5", "lead_1"]),
        ("score", [5.5, "lead_1"]),
        ("score", [True, "lead_1"]),
        ("score", [99999, "lead_1"]),
        ("score", [5, 7]),
        ("score", [5, "\0"]),
        ("created_at", [5, "lead_1"]),
        ("created_at", ["yesterday", "lead_1"]),
        ("created_at", ["2026-11-25T08:30:00", "lead_1"]),
        ("created_at", ["0001-01-01T00:00:00+14:00", "lead_1"]),
        ("updated_at", ["9999-12-31T23:59:59-14:00", "lead_1"]),
        ("last_name", [5, "lead_1"]),
        ("last_name", ["\0", "lead_1"]),
    ):
        with subtests.test(f"{sort} {values}"):
            real = (await api.get(f"/api/leads?limit=1&sort={sort}")).json()["next_cursor"]
            key = json.loads(base64.urlsafe_b64decode(real + "=="))[0]
            forged = base64.urlsafe_b64encode(json.dumps([key, *values]).encode()).decode().rstrip("=")
            assert (await api.get(f"/api/leads?limit=1&sort={sort}&cursor={forged}")).status_code == 400


async def test_the_last_page_has_no_cursor(api: httpx2.AsyncClient, listed: dict[str, str]) -> None:
    assert (await api.get("/api/leads?limit=4")).json()["next_cursor"] is None
    first = (await api.get("/api/leads?limit=3")).json()
    rest = (await api.get(f"/api/leads?limit=3&cursor={first['next_cursor']}")).json()
    assert [len(first["items"]), len(rest["items"]), rest["next_cursor"]] == [3, 1, None]


async def test_leads_that_come_while_paging_repeat_and_hide_nothing_in_the_order_of_creation(
    api: httpx2.AsyncClient, listed: dict[str, str]
) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await api.get(f"/api/leads?limit=1{cursor}")).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        await api.post("/api/leads", json={"email": f"new{len(seen)}@example.com"})
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == list(reversed(listed.values()))


SCORES = st.integers(0, 3)
LAST_NAMES = st.sampled_from([None, "", "a", "A", "b", "ä", "Z", "aa"])


@given(
    rows=st.lists(st.tuples(SCORES, LAST_NAMES), max_size=14),
    sort=st.sampled_from(["created_at", "updated_at", "score", "last_name"]),
    descending=st.booleans(),
    limit=st.integers(1, 5),
    least=st.none() | SCORES,
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_put_together_are_the_whole_list_in_order(
    *,
    api: httpx2.AsyncClient,
    database: Any,
    rows: list[tuple[int, str | None]],
    sort: str,
    descending: bool,
    limit: int,
    least: int | None,
) -> None:
    await database.execute("DELETE FROM leads")
    await database.executemany(
        "INSERT INTO leads (workspace_id, id, email, stage, score, last_name, tags, custom, consent, version, revision,"
        " created_at, updated_at) VALUES ('ws_1', $1, 'x@example.com', 'new', $2::smallint, $3, '[]', '{}', '{}', 1, 1,"
        " '2026-01-01T00:00:00Z'::timestamptz + $2 * interval '1 ms', '2026-01-01T00:00:00Z')",
        [(f"lead_{number}", score, name) for number, (score, name) in enumerate(rows)],
    )
    question = f"sort={'-' if descending else ''}{sort}" + (f"&score_min={least}" if least is not None else "")
    whole = (await api.get(f"/api/leads?limit=200&{question}")).json()["items"]
    paged: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await api.get(f"/api/leads?limit={limit}&{question}{cursor}")).json()
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        assert len(page["items"]) == limit
        cursor = f"&cursor={page['next_cursor']}"
    assert paged == whole
    assert {lead["id"] for lead in whole} == {
        f"lead_{number}" for number, (score, _) in enumerate(rows) if least is None or score >= least
    }

    def place(lead: dict[str, Any]) -> tuple[Any, str]:
        value = (lead["last_name"] or "").lower() if sort == "last_name" else lead[sort]
        return value, lead["id"]

    assert whole == sorted(whole, key=place, reverse=descending)
