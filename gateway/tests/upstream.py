"""A stand-in for a service: `python -m gateway.tests.upstream PORT NAME JOURNAL`.

It writes each request it receives to JOURNAL, one JSON object a line, then answers what the query asks for:
`status`, `sleep` (seconds), `problem` (a problem body of its own), `size` (bytes of the answer), and `die_once` (a path:
the first process to create that file kills itself in mid-request).
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chassis.whole_answers import WholeAnswers

PORT, NAME, JOURNAL = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])


def note(request: Request, body: bytes) -> dict[str, object]:
    received = {
        "service": NAME,
        "port": PORT,
        "connection": request.client.port if request.client else 0,
        "method": request.method,
        "path": request.scope["raw_path"].decode(),
        "query": request.url.query,
        "headers": dict(request.headers),
        "bytes": len(body),
    }
    with JOURNAL.open("a") as journal:
        journal.write(json.dumps(received) + "\n")
    return received


async def answer(request: Request) -> Response:
    query = request.query_params
    received = note(request, await request.body())
    if "die_once" in query:
        try:
            Path(query["die_once"]).touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(float(query.get("sleep", 0)))
    status = int(query.get("status", 200))
    headers = {"ETag": '"5"', "X-Request-ID": "the-service-echoes-too"}
    if "problem" in query:
        return JSONResponse({"title": "own"}, status, headers, media_type="application/problem+json")
    return JSONResponse(received | {"filler": "x" * int(query.get("size", 0))}, status, headers)


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

if __name__ == "__main__":
    app = Starlette(routes=[Route("/{path:path}", answer, methods=METHODS)])
    uvicorn.run(app, port=PORT, http=WholeAnswers, log_level="error", timeout_keep_alive=75, proxy_headers=False)
