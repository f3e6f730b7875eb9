"""auth as a process of its own: dying at the worst moment costs nobody the session, and announces no user twice or never."""

import signal

import httpx2
import pytest

from deploy.local.servers import free_ports
from tests.support.fixtures import eventually
from tests.support.processes import ServiceProcess, environment_of


@pytest.fixture
async def process(settings):
    """`await process("name:n")`: auth as a process of its own that ends at that failpoint, and a client to it.

    A start passes one transaction, the one that looks for a signing key: the request's own is the second.
    """
    started = []

    async def begin(failpoint):
        [port] = free_ports(1)
        running = ServiceProcess("auth", environment_of(settings.model_copy(update={"port": port}), failpoint))
        client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        started.append((running, client))

        async def is_ready():
            assert running.poll() is None
            try:
                return (await client.get("/health/ready")).status_code == 200
            except httpx2.TransportError:
                return False

        await eventually(is_ready, seconds=45, every=0.1)
        return running, client

    yield begin
    for running, client in started:
        await client.aclose()
        running.terminate()
        await running.exit_code()


async def test_a_replica_killed_after_a_refresh_committed_leaves_the_user_signed_in(api, agent, process):
    running, client = await process("refresh.before_response:1")
    listed = (await client.get("/api/auth/sessions", headers=agent.headers)).json()["items"]
    assert [session["id"] for session in listed] == [agent.session_id]
    with pytest.raises(httpx2.TransportError):
        await client.post("/api/auth/refresh", json={"refresh_token": agent.refresh_token})
    assert await running.exit_code() == -signal.SIGKILL
    # The gateway repeats the request at the other replica.
    again = await api.post("/api/auth/refresh", json={"refresh_token": agent.refresh_token})
    assert again.status_code == 200
    headers = {"Authorization": f"Bearer {again.json()['access_token']}"}
    assert (await api.get("/api/auth/me", headers=headers)).status_code == 200
    assert (
        await api.post("/api/auth/refresh", json={"refresh_token": again.json()["refresh_token"]})
    ).status_code == 200


async def test_a_process_takes_the_clients_address_from_the_gateway(agent, process):
    _, client = await process("")
    credentials = {"email": agent.email, "password": agent.password}
    answer = await client.post("/api/auth/login", json=credentials, headers={"X-Forwarded-For": "203.0.113.50"})
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    newest = (await client.get("/api/auth/sessions", headers=headers)).json()["items"][0]
    assert (newest["current"], newest["address"]) == (True, "203.0.113.50")


@pytest.mark.parametrize("failpoint", ["database.before_commit:2", "database.after_commit:2"])
async def test_a_replica_killed_in_a_create_leaves_one_user_announced_once(api, admin, process, announced, failpoint):
    running, client = await process(failpoint)
    body = {"email": f"k{admin.id}@example.com", "name": "K", "role": "agent", "password": "a long password"}
    # The id that the gateway gives a request is the same at each replica it tries.
    headers = admin.headers | {"X-Gateway-Request": f"{failpoint}-{admin.id}"}
    with pytest.raises(httpx2.TransportError):
        await client.post("/api/auth/users", json=body, headers=headers)
    assert await running.exit_code() == -signal.SIGKILL
    again = await api.post("/api/auth/users", json=body, headers=headers)
    assert again.status_code == 201
    events = await announced()
    assert [(event["type"], event["subject"]) for event in events] == [("user.created", again.json()["id"])]
