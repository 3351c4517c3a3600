"""The naive gate: `python -m bench.naive`, settings from the environment.

One redis-py EVALSHA per scan: the product's own script and parts (`Redeemer`, `redeem.lua`), but every scan is a call
of its own instead of going along with those that came meanwhile (and the script is made for many: it asks for what
scan_ids were told once a call, which a call of one scan pays alone). A plain aiohttp handler with the checks of
`bench.door`.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec
from aiohttp import web

from bench.comparison import run, serve
from bench.door import Door
from server import config as configuration
from server.domain.redemption import Decision, Scan, Undecided
from server.hot.connection import connect
from server.hot.redeem import Redeemer
from server.hot.scripts import ScriptRunner
from server.store.pool import Database
from server.web.scanning import scan_answer

_encode: Final = msgspec.json.Encoder().encode


class OneByOne(Redeemer):
    """Judges each scan by a script call of its own."""

    def __init__(self, runner: ScriptRunner, shards: int) -> None:
        super().__init__(runner, shards)
        self._judges = [self._judge(shard) for shard in range(shards)]

    async def redeem_alone(self, scan: Scan) -> str | Undecided:
        """The verdict's line, or why nothing was decided."""
        (answer,) = await self._judges[self.shard_of(scan)]([scan])
        return answer


async def main() -> None:
    """Serve until SIGTERM."""
    config = configuration.load(os.environ)
    redis = connect(config.redis_url or "")
    database = Database(config.database_url or "", size_max=1)
    door = await Door.open(config, database)
    redeemer = OneByOne(ScriptRunner(redis, config.ack), config.shards)

    async def handle(request: web.Request) -> web.Response:
        scan = await door.read(request)
        answer = await redeemer.redeem_alone(scan)
        if isinstance(answer, Undecided):
            raise web.HTTPServiceUnavailable(text=answer.name)
        body = _encode(scan_answer(Decision.parse(answer), scan.scan_id))
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/venue/scan", handle)
    await serve(app)
    await redis.aclose(close_connection_pool=True)
    await database.close()


if __name__ == "__main__":
    run(main())
