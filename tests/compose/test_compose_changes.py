"""Scaled, replaced, killed and restarted under load: no request fails, and nothing is lost."""

import json
import time

import pytest

from tests.compose.conftest import FIGURES, Containers, eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

SERVICES = ("auth", "leads", "workflows", "crm-sync")
WORKERS = ("leads-worker", "workflows-worker", "crm-sync-worker")
NOTICED_SECONDS = 10


def test_replicas_that_are_added_answer_within_ten_seconds_and_leave_without_a_failure(containers: Containers) -> None:
    with containers.load(clients=2, pause=0.1) as load:
        began = time.time()
        containers.scale(leads=4)
        scaled = time.time()
        eventually(lambda: len(containers.answers("leads", scaled)) == 4, 30)
        all_four = max(min(times) for times in containers.answers("leads", scaled).values()) - scaled
        since = time.time()
        time.sleep(5)
        shares = {address: len(times) for address, times in containers.answers("leads", since).items()}
        containers.scale(leads=1)
        eventually(lambda: len(containers.ids("leads")) == 1, 60)
        time.sleep(2)
    FIGURES.append(f"scaled to 4 in {scaled - began:.1f} s, all four answered at most {all_four + 1:.1f} s later")
    FIGURES.append(f"shares of four replicas: {sorted(shares.values())}; {sum(load.answers.values())} requests")
    assert all_four < NOTICED_SECONDS
    assert len(shares) == 4
    assert min(shares.values()) > max(shares.values()) / 4
    assert load.failures == {}
    containers.check_nothing_lost(load)


def test_workers_come_and_go_while_runs_and_syncs_are_under_way(containers: Containers) -> None:
    with containers.load(score=80) as load:
        containers.scale(**{worker.replace("-", "_"): 3 for worker in WORKERS})
        containers.wait_ready(*WORKERS)
        time.sleep(3)
        containers.scale(**{worker.replace("-", "_"): 1 for worker in WORKERS})
        eventually(lambda: all(len(containers.ids(worker)) == 1 for worker in WORKERS), 90)
    assert load.failures == {}
    containers.check_nothing_lost(load)


@pytest.mark.parametrize("service", [*SERVICES, *WORKERS])
def test_a_rollout_replaces_every_container_and_fails_no_request(containers: Containers, service: str) -> None:
    before = set(containers.ids(service))
    with containers.load(score=80) as load:
        done = containers.command("rollout", service)
        assert done.returncode == 0, done.stdout + done.stderr
    after = set(containers.ids(service))
    assert (len(after), after & before) == (len(before), set())
    assert load.failures == {}
    containers.check_nothing_lost(load)


def test_a_killed_replica_of_each_kind_fails_no_request(containers: Containers) -> None:
    containers.scale(**{name.replace("-", "_"): 2 for name in (*SERVICES, *WORKERS)})
    containers.wait_ready()
    with containers.load(score=80) as load:
        for name in (*SERVICES, *WORKERS):
            containers.docker("kill", containers.ids(name)[0])
            time.sleep(2.5)  # two at once is not what is promised
    assert load.failures == {}
    containers.check_nothing_lost(load, seconds=150)  # what a dead worker had in hand is free after its lease, a minute


def test_the_gateways_configuration_is_reloaded_without_a_failure(containers: Containers) -> None:
    with containers.load(clients=8, pause=0.05) as load:
        for _ in range(3):
            containers.compose("exec", "-T", "gateway", "gateway", "reload")
            time.sleep(0.5)
    assert load.failures == {}
    containers.check_nothing_lost(load)


@pytest.mark.parametrize("server", ["redis", "rabbitmq"])
def test_a_restarted_server_fails_no_request(containers: Containers, server: str) -> None:
    with containers.load(score=80) as load:
        containers.compose("restart", server)
        containers.wait_ready(server)
        time.sleep(2)
    assert load.failures == {}
    containers.check_nothing_lost(load)


def test_eight_replicas_of_everything_have_connections_enough(containers: Containers) -> None:
    """By the limits of the roles for all, by use for the service that needs most: 56 processes are more than two cores start."""
    most = int(containers.sql("postgres", "SHOW max_connections"))
    limits = dict(
        line.split("|")
        for line in containers.sql(
            "postgres", "SELECT rolname, rolconnlimit FROM pg_roles WHERE rolconnlimit > 0"
        ).splitlines()
    )
    of_one_process = int(containers.settings()["DATABASE_POOL_SIZE"]) + 2
    kinds = {"auth": 1, "leads": 2, "workflows": 2, "crm_sync": 2}
    assert {role: int(limit) for role, limit in limits.items()} == {
        role: number * 9 * of_one_process for role, number in kinds.items()
    }
    assert sum(map(int, limits.values())) < most
    containers.scale(leads=8, leads_worker=8)
    containers.wait_ready("leads", "leads-worker", seconds=300)
    with containers.load(clients=16, pause=0) as load:
        time.sleep(5)
        used = int(containers.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'leads'"))
    FIGURES.append(
        f"8 leads and 8 leads-workers under load: {used} connections of {limits['leads']} allowed, {most} for all"
    )
    assert load.failures == {}
    assert used <= int(limits["leads"])
    assert "too many connections" not in containers.compose("logs", "--no-log-prefix", "postgres", "leads")
    with containers.sign_in() as api:
        services = json.loads(api.ask("GET", "/health/detailed")[1])["services"]
    assert len([name for name in services if name.startswith("leads")]) == 16
    containers.scale(leads=1, leads_worker=1)
