"""How the servers that we compare with are run: plain aiohttp under uvloop, on any free port, told on stderr."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop
from aiohttp import web

from server.service import CONNECTION, stop_signal


async def serve(app: web.Application) -> None:
    """Serve until SIGTERM, reading connections as the product does."""
    stopped = stop_signal()
    runner = web.AppRunner(app, **CONNECTION)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        sys.stderr.write(
            json.dumps({"event": "serving", "level": "info", "address": f"http://{host}:{port}"}) + "\n"
        )
        sys.stderr.flush()
        await stopped.wait()
    finally:
        await runner.cleanup()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a program to its end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
