"""Every endpoint of the predecessor works through the gateway, at its old path."""

from tests.support.system import Client, RunningSystem


async def test_signing_in_gives_tokens(system: RunningSystem) -> None:
    client = Client(system.url)
    answer = await client.post(
        "/api/auth/login", {"email": system.settings.admin_email, "password": system.settings.admin_password}
    )
    await client.close()
    assert answer.status_code == 200
    assert {"access_token", "refresh_token", "expires_in", "token_type"} <= set(answer.json())


async def test_the_three_demo_leads_are_there(client: Client) -> None:
    names = {
        "lead-1": ("John", "Test", "john.test@example.com"),
        "lead-2": ("Jane", "Demo", "jane.demo@example.com"),
        "lead-3": ("Bob", "Sample", "bob.sample@example.com"),
    }
    for lead_id, (first, last, email) in names.items():
        lead = (await client.get(f"/api/leads/{lead_id}")).json()
        assert (lead["first_name"], lead["last_name"], lead["email"]) == (first, last, email)


async def test_leads_are_created_listed_read_replaced_and_deleted(client: Client) -> None:
    created = await client.post("/api/leads", {"email": "predecessor@example.com", "first_name": "Ada", "score": 10})
    assert created.status_code == 201
    lead = created.json()
    path = f"/api/leads/{lead['id']}"
    assert created.headers["location"] == path
    assert (await client.get(path)).json() == lead
    listed = (await client.get("/api/leads?limit=200&sort=-created_at")).json()
    assert lead["id"] in [each["id"] for each in listed["items"]]
    replaced = await client.put(path, {"email": "predecessor@example.com", "first_name": "Grace"})
    assert replaced.status_code == 200
    assert (replaced.json()["first_name"], replaced.json()["score"], replaced.json()["version"]) == ("Grace", 0, 2)
    assert (await client.get(path)).json() == replaced.json()
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_a_workflow_is_defined_and_its_status_read(client: Client) -> None:
    defined = await client.post(
        "/api/workflows",
        {
            "name": "Predecessor's workflow",
            "trigger": {"type": "manual"},
            "steps": [{"id": "end", "type": "stop"}],
            "start": {"lead_id": "lead-1"},
        },
    )
    assert defined.status_code == 201, defined.text
    status = await client.get(f"/api/workflows/{defined.json()['id']}/status")
    assert status.status_code == 200
    assert status.json()["latest_run"] is not None


async def test_health_is_cheap_and_detailed_health_names_every_service(client: Client) -> None:
    assert (await client.get("/health")).json()["status"] == "ok"
    detailed = await client.get("/health/detailed")
    assert detailed.status_code == 200, detailed.text
    names = " ".join(detailed.json()["services"])
    for service in ("auth", "leads", "workflows", "crm-sync", "leads-worker", "workflows-worker", "crm-sync-worker"):
        assert service in names
