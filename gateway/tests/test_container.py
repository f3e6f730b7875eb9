"""The configuration for the container image: replicas by name, and only what an operator may set left open."""

import re
from pathlib import Path

from gateway import container
from gateway.render import UPSTREAMS


def test_only_what_is_set_at_the_start_is_left_open(tmp_path: Path) -> None:
    container.write(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    left = {name for path in files for name in re.findall(r"\$\{(\w+)\}", path.read_text())}
    assert left == set(container.AT_START)
    entry_point = (Path(__file__).parents[2] / "deploy/containers/gateway.sh").read_text()
    [filled_in] = re.findall(r"envsubst '(.*)'", entry_point)
    assert set(re.findall(r"\$\{(\w+)\}", filled_in)) == set(container.AT_START)


def test_every_upstream_is_found_by_its_services_name(tmp_path: Path) -> None:
    container.write(tmp_path)
    text = (tmp_path / "upstreams.conf").read_text()
    for name in UPSTREAMS:
        [block] = re.findall(rf"upstream {name} {{\n(.*?)^}}", text, re.DOTALL | re.MULTILINE)
        servers = re.findall(r"server (\S+) resolve (.*);", block)
        assert [address for address, _ in servers] == [f"{name.replace('_', '-')}:8000"] * 2
        assert "resolver 127.0.0.11 valid=1s" in block
