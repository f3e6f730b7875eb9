"""Calls to the outside reach public HTTPS addresses only, once resolved, never redirected, never without bounds."""

import asyncio
import gzip
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chassis.http import OutboundClient, OutboundFailed, OutboundRefused

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


async def test_the_environments_proxies_are_not_used(
    serve: Callable[[Handler], Awaitable[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    proxy = await serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy", asked))
    port = await serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ndirect", []))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
    client = OutboundClient(f"127.0.0.1:{port}")
    try:
        assert (await client.request("GET", f"http://127.0.0.1:{port}/")).body == b"direct"
    finally:
        await client.close()
    assert asked == []


async def test_an_answer_that_drips_is_given_up_in_time_too(serve: Callable[[Handler], Awaitable[int]]) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()

    port = await serve(drip)
    client = OutboundClient(f"127.0.0.1:{port}")
    try:
        async with asyncio.timeout(3):
            with pytest.raises(OutboundFailed) as failed:
                await client.request("GET", f"http://127.0.0.1:{port}/", timeout=0.3)
    finally:
        await client.close()
    assert failed.value.sent


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


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to; each look-up is noted under `asked`."""
    known: dict[str, list[str]] = {"asked": []}

    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        known["asked"].append(host)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


@pytest.fixture
def certified(monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context with a certificate for `one.test` only, which clients made from now on trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("one.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(public + private)
        file.flush()
        context.load_cert_chain(file.name)
    trusted = ssl.create_default_context(cadata=public.decode())
    monkeypatch.setattr("chassis.http._public_authorities", lambda: trusted)
    return context


async def test_a_certificate_counts_for_its_own_name_although_the_address_is_shared(
    certified: ssl.SSLContext, names: dict[str, list[str]]
) -> None:
    """Two names behind one address (any content network): a connection made for one is never used for the other."""
    names["one.test"] = names["two.test"] = ["127.0.0.1"]
    requests: list[bytes] = []

    async def keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(keep_alive, "127.0.0.1", 0, ssl=certified)
    port = server.sockets[0].getsockname()[1]
    client = OutboundClient(f"one.test:{port},two.test:{port}")
    try:
        for _ in range(2):
            assert (await client.request("GET", f"https://one.test:{port}/")).status == 200
        with pytest.raises(OutboundFailed) as failed:
            await client.request("GET", f"https://two.test:{port}/", headers={"authorization": "secret"})
    finally:
        await client.close()
        server.close()
        await server.wait_closed()
    assert not failed.value.sent
    assert [request.count(b"Host: one.test") + request.count(b"host: one.test") for request in requests] == [1, 1]


async def test_a_name_is_looked_up_once_and_what_was_checked_is_what_is_called(names: dict[str, list[str]]) -> None:
    """Between check and connection no second answer of the name's server can come."""
    names["rebind.test"] = ["10.0.0.1"]
    names["mixed.test"] = ["1.1.1.1", "127.0.0.1"]
    client = OutboundClient("")
    try:
        for host in ("rebind.test", "mixed.test", "nowhere.test"):
            names["asked"].clear()
            with pytest.raises(OutboundRefused):
                await client.request("GET", f"https://{host}/")
            assert names["asked"] == [host]
    finally:
        await client.close()


async def test_the_next_address_is_tried_when_the_first_does_not_answer(
    serve: Callable[[Handler], Awaitable[int]], names: dict[str, list[str]]
) -> None:
    names["two.test"] = ["127.0.0.2", "127.0.0.1"]
    port = await serve(answering(b"HTTP/1.1 204 No Content\r\n\r\n", []))
    client = OutboundClient(f"two.test:{port}")
    try:
        assert (await client.request("GET", f"http://two.test:{port}/")).status == 204
    finally:
        await client.close()


async def test_a_name_server_that_does_not_answer_is_a_failure_that_was_never_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    client = OutboundClient("")
    try:
        with pytest.raises(OutboundFailed) as failed:
            await client.request("GET", "https://example.com/")
    finally:
        await client.close()
    assert not failed.value.sent


async def test_an_answer_that_grows_when_it_is_unpacked_is_bounded_too(
    serve: Callable[[Handler], Awaitable[int]],
) -> None:
    packed = gzip.compress(b"x" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    port = await serve(answering(head + packed, []))
    client = OutboundClient(f"127.0.0.1:{port}")
    try:
        with pytest.raises(OutboundFailed):
            await client.request("GET", f"http://127.0.0.1:{port}/")
    finally:
        await client.close()
