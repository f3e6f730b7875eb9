"""The services that crm-sync asks, answered by the test."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any

from tests.support.identity import TestIdentity


@dataclass
class Neighbours:
    """Auth's and leads' addresses, answered by the test. `leads` are those that leads would know, by workspace and id."""

    identity: TestIdentity
    leads: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while line := await reader.readline():
                length, token = 0, ""
                while header := (await reader.readline()).decode().strip():
                    name, _, value = header.partition(": ")
                    length = int(value) if name.lower() == "content-length" else length
                    token = value if name.lower() == "authorization" else token
                body = await reader.readexactly(length)
                status, document = await self._answer(line.decode().split(" ")[1], body.decode(), token)
                text = json.dumps(document).encode()
                head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
                writer.write(head.encode() + text)
                await writer.drain()

    async def _answer(self, path: str, body: str, token: str) -> tuple[int, Any]:
        if path.endswith("jwks.json"):
            return 200, await self.identity.keys()
        if path.endswith("/ended"):
            return 200, {"ended": list(await self.identity.ended_sessions())}
        if path == "/api/auth/token":
            workspace = dict(part.split("=") for part in body.split("&"))["workspace_id"]
            return 200, {"access_token": f"for:{workspace}", "token_type": "bearer", "expires_in": 900}
        lead = self.leads.get((token.partition(":")[2], path.rpartition("/")[2]))
        return (200, lead) if lead else (404, {"title": "Not found"})


@asynccontextmanager
async def serving(neighbours: Neighbours) -> AsyncIterator[Neighbours]:
    server = await asyncio.start_server(neighbours.serve, "127.0.0.1", 0)
    neighbours.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield neighbours
    finally:
        server.close()
