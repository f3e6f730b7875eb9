"""What an operator gets from `make up`: the system, shown to work, in containers that can do little harm."""

import json
import re

import pytest

from tests.compose.conftest import Containers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

OURS = (
    "auth",
    "leads",
    "leads-worker",
    "workflows",
    "workflows-worker",
    "crm-sync",
    "crm-sync-worker",
    "gateway",
    "simulator",
)
SERVERS = ("postgres", "rabbitmq", "redis")


def test_up_makes_settings_and_shows_a_leads_way(started: tuple[Containers, str]) -> None:
    containers, said = started
    assert ".env was made" in said
    hops = ["accepted: 201", "event lead.created published", "matched: run_", "step sync", "CRM id ", "visible in GET"]
    assert [hop for hop in hops if hop not in said] == []
    assert containers.settings()["ADMIN_PASSWORD"] not in said


def test_up_again_changes_nothing(containers: Containers) -> None:
    before = {service: containers.ids(service) for service in (*OURS, *SERVERS)}
    done = containers.command("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {service: containers.ids(service) for service in (*OURS, *SERVERS)} == before


def test_compose_says_what_is_missing(containers: Containers) -> None:
    done = containers._run(["docker", "compose", "--env-file", "/dev/null", "up", "--detach"], 60)
    assert done.returncode != 0
    assert "make up" in done.stderr


@pytest.mark.parametrize("service", OURS)
def test_our_containers_can_do_little(containers: Containers, service: str) -> None:
    for one in json.loads(containers.docker("inspect", *containers.ids(service))):
        host, config = one["HostConfig"], one["Config"]
        assert config["User"] not in ("", "0", "root")
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Memory"] > 0
        assert config["StopTimeout"] >= 30
        assert one["State"]["Health"]["Status"] == "healthy"


def test_only_the_gateway_can_be_reached_from_outside(containers: Containers) -> None:
    published = {
        service: json.loads(containers.docker("inspect", *containers.ids(service)))[0]["HostConfig"]["PortBindings"]
        for service in (*OURS, *SERVERS)
    }
    assert {service for service, ports in published.items() if ports} == {"gateway"}
    assert published["gateway"]["8080/tcp"][0]["HostIp"] == "127.0.0.1"


def test_the_images_hold_no_sources_compilers_or_secrets(containers: Containers) -> None:
    found = "find / -xdev \\( -path '/app/own/*.py' -o -path '*/bin/*gcc*' -o -path '*/bin/cc' -o -name .git -o -name .env \\)"
    [service] = {json.loads(containers.docker("inspect", one))[0]["Image"] for one in containers.ids("leads")}
    [gateway] = {json.loads(containers.docker("inspect", one))[0]["Image"] for one in containers.ids("gateway")}
    for image in (service, gateway):
        assert containers.docker("run", "--rm", "--entrypoint", "sh", image, "-c", f"{found} 2>/dev/null || true") == ""
        built = containers.docker("image", "inspect", image) + containers.docker("history", "--no-trunc", image)
        secrets = [value for name, value in containers.settings().items() if re.search("PASSWORD|SECRET|KEYS", name)]
        assert secrets
        assert [secret for secret in secrets if secret in built] == []


def test_the_health_of_every_replica_is_shown(containers: Containers) -> None:
    with containers.sign_in() as api:
        services = api.get("/health/detailed")["services"]
    assert {"leads-1", "leads-2", "auth-1", "crm-sync-worker-1", "workflows-worker-1"} <= set(services)
    assert {one["status"] for one in services.values()} == {"ok"}
