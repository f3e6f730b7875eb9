"""Users reach every consumer over the broker, the seeded administrator too, and writes do not wait for the broker."""

import aio_pika
import orjson

from auth.seed import seed
from tests.support.fixtures import eventually


async def taken(broker_url, queue_name):
    """Every message now in a queue."""
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue(queue_name)
        found = []
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            found.append(orjson.loads(message.body))
        return found


async def received(broker_url, queue_name, count):
    """`count` events from a queue, once they are all there."""
    found = []

    async def enough():
        found.extend(await taken(broker_url, queue_name))
        return len(found) >= count

    await eventually(enough)
    return found


async def test_a_users_life_reaches_both_consumers_in_versions(api, admin, broker_url):
    body = {"email": f"life-{admin.id}@example.com", "name": "Life", "role": "agent", "password": "a long password"}
    user = (await api.post("/api/auth/users", json=body, headers=admin.headers)).json()
    path = f"/api/auth/users/{user['id']}"
    for patch in ({"name": "Changed"}, {"active": False}):
        assert (await api.patch(path, json=patch, headers=admin.headers)).status_code == 200
    for queue in ("leads.users", "workflows.users"):
        events = await received(broker_url, queue, 3)
        assert {(event["type"], event["subjectversion"], event["data"]["active"]) for event in events} == {
            ("user.created", 1, True),
            ("user.updated", 2, True),
            ("user.disabled", 3, False),
        }
        assert {event["subject"] for event in events} == {user["id"]}


async def test_the_seeded_administrator_is_announced_as_soon_as_a_replica_runs(own_settings, start, broker_url):
    made = await seed(own_settings.database_url.get_secret_value(), "admin@example.com", "a generated password")
    await start(own_settings)
    [event] = await received(broker_url, "leads.users", 1)
    assert (event["type"], event["subject"]) == ("user.created", made.user_id)


async def test_users_are_created_and_sign_in_while_the_broker_is_away(own_settings, start):
    made = await seed(own_settings.database_url.get_secret_value(), "admin@example.com", "a generated password")
    replica = await start(own_settings, broker_url="amqp://guest:guest@127.0.0.1:9/")
    async with replica.client() as client:
        credentials = {"email": "admin@example.com", "password": "a generated password"}
        signed_in = (await client.post("/api/auth/login", json=credentials)).json()
        headers = {"Authorization": f"Bearer {signed_in['access_token']}"}
        body = {"email": "ada@example.com", "name": "Ada", "role": "agent", "password": "a long password"}
        answer = await client.post("/api/auth/users", json=body, headers=headers)
        assert answer.status_code == 201
        health = await client.get("/health/detailed")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["dependencies"]["postgresql"]["outbox_waiting"] == 2
    assert made.created


async def test_users_sign_in_while_redis_is_away(own_settings, start):
    await seed(own_settings.database_url.get_secret_value(), "admin@example.com", "a generated password")
    replica = await start(own_settings, cache_url="redis://127.0.0.1:9/0")
    async with replica.client() as client:
        credentials = {"email": "admin@example.com", "password": "a generated password"}
        assert (await client.post("/api/auth/login", json=credentials)).status_code == 200
