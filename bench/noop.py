"""The no-op: an aiohttp handler that reads the body and answers with fixed bytes: `python -m bench.noop ANSWER`.

What aiohttp itself costs on this machine, in this very run: every lane is shown against it. ANSWER is a file with an
answer that the real server gave: status, headers and body are those, so that the same bytes go over the wire.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from aiohttp import web

from bench.answers import read_http
from bench.comparison import run, serve

_MADE_BY_AIOHTTP: Final = frozenset({"content-length", "date"})


def app(answer: bytes) -> web.Application:
    """The application; `answer`: what it says, from the status line to the end of the body."""
    found = read_http(answer)
    if found is None:
        raise ValueError("not a whole answer")
    lines = answer[: found.body].decode("latin-1").split("\r\n")[1:-2]
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = {name: value for name, value in pairs if name.lower() not in _MADE_BY_AIOHTTP}
    body, status = answer[found.body : found.end], found.status

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, body=body, headers=headers)

    application = web.Application()
    application.router.add_post("/venue/scan", handle)
    return application


if __name__ == "__main__":
    run(serve(app(Path(sys.argv[1]).read_bytes())))
