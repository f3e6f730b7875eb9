"""Calls to the outside reach public HTTPS addresses only, once resolved, never redirected, never without bounds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chassis.http import OutboundClient, OutboundFailed, OutboundRefused, is_public

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[int]]]:
    """Starts a raw TCP server for one test; gives its port."""
    servers: list[asyncio.Server] = []

    async def start(handler: Handler) -> int:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def answering(raw: bytes, requests: list[bytes]) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(raw)
        await writer.drain()
        writer.close()

    return handle


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "104.16.0.1", "2606:4700::1", "::ffff:1.1.1.1"])
def test_addresses_outside_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://example.com:8443/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user:pw@example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "//example.com",
        "not a url",
        "https://",
    ],
)
async def test_a_call_inside_or_by_another_way_is_refused_before_it_is_sent(url: str) -> None:
    client = OutboundClient("")
    try:
        with pytest.raises(OutboundRefused):
            await client.request("GET", url)
    finally:
        await client.close()


async def test_an_allowed_host_is_reached_and_its_neighbour_port_is_not(
    serve: Callable[[Handler], Awaitable[int]],
) -> None:
    requests: list[bytes] = []
    port = await serve(answering(b"HTTP/1.1 201 Created\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok", requests))
    client = OutboundClient(f"127.0.0.1:{port}")
    try:
        answer = await client.request("POST", f"http://127.0.0.1:{port}/hook?a=1", content=b"{}", headers={"x-b": "c"})
        with pytest.raises(OutboundRefused):
            await client.request("GET", f"http://127.0.0.1:{port + 1}/")
    finally:
        await client.close()
    assert (answer.status, answer.headers["x-a"], answer.body) == (201, "b", b"ok")
    assert requests[0].startswith(b"POST /hook?a=1 HTTP/1.1\r\n")
    assert f"127.0.0.1:{port}".encode() in requests[0]


async def test_a_redirect_is_an_answer_and_is_not_followed(serve: Callable[[Handler], Awaitable[int]]) -> None:
    requests: list[bytes] = []
    raw = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    port = await serve(answering(raw, requests))
    client = OutboundClient(f"127.0.0.1:{port}")
    try:
        answer = await client.request("GET", f"http://127.0.0.1:{port}/")
    finally:
        await client.close()
    assert answer.status == 302
    assert len(requests) == 1


async def test_an_answer_above_a_megabyte_is_a_failure(serve: Callable[[Handler], Awaitable[int]]) -> None:
    raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 1_100_000
    port = await serve(answering(raw, []))
    client = OutboundClient(f"127.0.0.1:{port}")
    try:
        with pytest.raises(OutboundFailed) as failed:
            await client.request("GET", f"http://127.0.0.1:{port}/")
    finally:
        await client.close()
    assert failed.value.sent


async def test_a_silent_server_fails_in_time_and_says_that_the_request_was_sent(
    serve: Callable[[Handler], Awaitable[int]],
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    port = await serve(silent)
    client = OutboundClient(f"127.0.0.1:{port}")
    try:
        async with asyncio.timeout(3):
            with pytest.raises(OutboundFailed) as failed:
                await client.request("GET", f"http://127.0.0.1:{port}/", timeout=0.3)
    finally:
        await client.close()
    assert failed.value.sent


async def test_a_closed_port_is_a_failure_that_was_never_sent() -> None:
    client = OutboundClient("127.0.0.1:9")
    try:
        with pytest.raises(OutboundFailed) as failed:
            await client.request("GET", "http://127.0.0.1:9/")
    finally:
        await client.close()
    assert not failed.value.sent
