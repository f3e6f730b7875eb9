"""The document of the whole system, and the page that shows it. That it is what the services say is compared by `make lint`."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from gateway import openapi
from gateway.tests.running import Gateway


@pytest.fixture(scope="module")
def text() -> str:
    return openapi.TARGET.read_text()


@pytest.fixture(scope="module")
def document(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_service_is_in_it(document: dict[str, Any]):
    for path in ("/api/auth/login", "/api/leads", "/api/workflows", "/api/runs", "/api/crm/connections", "/health"):
        assert path in document["paths"]
    assert not [path for path in document["paths"] if path.startswith(("/internal", "/metrics"))]


def test_every_reference_leads_somewhere(document: dict[str, Any]):
    for reference in set(references(document)):
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_every_operation_says_what_it_does_with_an_example_and_its_errors(document: dict[str, Any]):
    for name, operation in operations(document):
        assert operation["operationId"], name
        assert operation["summary"], name
        assert operation["tags"], name
        good = {status: answer for status, answer in operation["responses"].items() if status[0] == "2"}
        assert good, name
        for answer in good.values():
            for media in answer.get("content", {}).values():
                assert "example" in media or "examples" in media, name
        if name != "GET /health":
            assert {"429", "502", "503", "504"} <= set(operation["responses"]), name
        if "security" in operation:
            assert "401" in operation["responses"], name


def test_a_stale_file_is_noticed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "openapi.json"
    monkeypatch.setattr(openapi, "TARGET", target)
    monkeypatch.setattr(openapi, "whole_document", lambda: text)
    monkeypatch.setattr("sys.argv", ["openapi", "--check"])
    assert openapi.main() == 1
    target.write_text(text)
    assert openapi.main() == 0
    target.write_text(text.replace("/api/leads", "/api/leeds"))
    assert openapi.main() == 1


class Page(HTMLParser):
    """What a page loads, and whether anything in it would need an exception from the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        for name, value in attrs:
            if (tag, name) in (("script", "src"), ("link", "href"), ("img", "src")):
                self.loads.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(self._open)


def test_the_page_loads_all_it_needs_from_here_and_runs_under_its_policy(gateway: Gateway):
    address = f"{gateway.url}/api/docs"
    answer = httpx2.get(address)
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'; style-src 'self'" in policy
    assert "connect-src 'self'" in policy
    page = Page()
    page.feed(answer.text)
    assert page.inline == []
    assert len(page.loads) == 4
    kinds = {"js": "application/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "png": "image/png"}
    for link in [*page.loads, "/api/docs/vendor/LICENSE"]:
        where = urljoin(address, link)
        assert urlsplit(where).netloc == urlsplit(address).netloc
        found = httpx2.get(where)
        assert (found.status_code, len(found.content) > 100) == (200, True)
        assert found.headers["content-type"] == kinds.get(link.rpartition(".")[2], "application/octet-stream")
    script = httpx2.get(urljoin(address, "/api/docs/start.js")).text
    assert 'url: "/api/openapi.json"' in script
    assert httpx2.get(f"{gateway.url}/api/openapi.json").json()["info"]["title"] == "Automation Orchestrator"
    assert httpx2.get(f"{gateway.url}/api/docs/").text == answer.text
