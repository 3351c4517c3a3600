"""The installation that is to suffer: real processes, and a way of the harness between each of them and the next.

Two `gateline serve`, two `gateline work`, a Valkey, a Postgres. Each of the four reaches each database by a way of its
own, and clients reach each server by one, so that any single connection can fail alone.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from server import config as configuration
from server.config import Config
from server.dev.embedded_postgres import EmbeddedPostgres
from server.store.migrate import migrate_by_owner
from tests.chaos.clock import Clock
from tests.chaos.disk import SmallDisk
from tests.chaos.parts import ClockedValkey, DatabasePart, Gateline, OneWorker, Part
from tests.chaos.proxy import Link, held_port
from tests.chaos.standby import ClockedPostgres, stand_by

SERVERS = ("serve-1", "serve-2")
WORKERS = ("work-1", "work-2")
HOLD_S = 8  # an order that is let be expires, and its late payment comes, within a short run
QR_TTL_S = 20
APPENDFSYNC = {"memory": "everysec", "fsync": "always", "replica": "always"}


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Installation:
    """What runs, by name, and what lies between."""

    folder: Path
    ack: str
    settings: dict[str, str]
    valkey: DatabasePart
    postgres: DatabasePart
    gatelines: dict[str, Gateline]
    links: dict[str, Link]
    clocks: dict[str, Clock]
    secret: bytes  # shared with the payment gateway
    replica: DatabasePart | None = None
    standby: ClockedPostgres | None = None  # has all that Postgres promises
    small_disk: SmallDisk | None = None  # what Postgres is on, where it may be filled
    spare: list[Any] = field(default_factory=list)  # servers that were replaced, to be erased at the end

    @property
    def parts(self) -> dict[str, Part]:
        """Everything that can be killed, by name."""
        each = {f"a worker of {name}": OneWorker(self.gatelines[name]) for name in self.crowded}
        return {**self.gatelines, **each, "valkey": self.valkey, "postgres": self.postgres}

    @property
    def crowded(self) -> list[str]:
        """Servers of several workers."""
        return [name for name, part in self.gatelines.items() if part.workers > 1]

    @property
    def doors(self) -> list[str]:
        """The servers' addresses, as clients know them."""
        return [f"http://127.0.0.1:{self.links[f'clients>{name}'].port}" for name in SERVERS]

    @property
    def redis_url(self) -> str:
        """Straight to the Valkey of the moment, past every link."""
        return self.valkey.server.url

    @property
    def record_url(self) -> str:
        """Straight to the Postgres of the moment, as its owner, who may look at everything."""
        assert isinstance(self.postgres.server, EmbeddedPostgres)
        return self.postgres.server.owner_url

    @property
    def direct(self) -> dict[str, str]:
        """Settings of a process that is to reach both databases past every link."""
        return {**self.settings, "REDIS_URL": self.redis_url, "DATABASE_URL": self.postgres.server.url}

    @property
    def config(self) -> Config:
        """The same, validated."""
        return configuration.load(self.direct)

    async def heal(self) -> None:
        """Everything runs, everything passes, every clock is right."""
        for clock in self.clocks.values():
            clock.set(0)
        for link in self.links.values():
            await link.heal()
        for part in self.parts.values():
            part.go_on()
        for database in (self.postgres, self.valkey):
            await database.start()
        await asyncio.gather(*(each.start() for each in self.gatelines.values() if not each.alive))

    def point_to(self, database: str, port: int) -> None:
        """`redis` or `postgres` is behind this port from now on: as a virtual address that moves."""
        for name, link in self.links.items():
            if name.endswith(f">{database}"):
                link.target = port
                link.cut()


@asynccontextmanager
async def install(
    folder: Path,
    *,
    ack: str = "fsync",
    postgres_folder: Path | None = None,
    standby: bool = False,
    workers: int = 1,
    shards: int = 1,
    **more: str,
) -> AsyncIterator[Installation]:
    """Start everything on fresh databases; all of it is ended and erased afterwards.

    `standby`: Postgres streams to a second one, and answers when both have what it promises. `workers`: of each server.
    `more`: settings.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - before anything runs
    clocks = {name: Clock(folder, name) for name in (*SERVERS, *WORKERS, "valkey", "postgres")}
    valkey = ClockedValkey(folder / "valkey", clocks["valkey"], appendfsync=APPENDFSYNC[ack])
    postgres = ClockedPostgres(
        postgres_folder or folder / "postgres", clocks["postgres"], log=folder / "postgres.log"
    )
    async with AsyncExitStack() as stack:
        for server in (valkey, postgres):
            stack.push_async_callback(asyncio.to_thread, server.erase)
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in (valkey, postgres)))
        installed = await _assemble(folder, ack, valkey, postgres, clocks, more, workers, shards)
        stack.push_async_callback(_erase_spare, installed)
        if ack == "replica":
            await follow(installed)
        if standby:
            installed.standby = await asyncio.to_thread(stand_by, postgres, folder / "standby")
            installed.spare.append(installed.standby)
        for link in installed.links.values():
            await link.open()
            stack.push_async_callback(link.close)
        for part in installed.gatelines.values():
            stack.push_async_callback(part.kill)
        await asyncio.gather(*(part.start() for part in installed.gatelines.values()))
        yield installed


async def _assemble(
    folder: Path,
    ack: str,
    valkey: ClockedValkey,
    postgres: ClockedPostgres,
    clocks: dict[str, Clock],
    more: dict[str, str],
    workers: int,
    shards: int,
) -> Installation:
    await migrate_by_owner(postgres.url, postgres.owner_url)
    secret = secrets.token_bytes(32)
    settings = {
        "GATELINE_ACK": ack,
        "GATELINE_QR_KEYS": f"1:{_key()}",
        "GATELINE_JWT_KEYS": f"k1:{_key()}",
        "GATELINE_GATEWAY_SECRETS": base64.b64encode(secret).decode(),
        "GATELINE_GATEWAY_URL": "http://127.0.0.1:9",  # nobody is there: settlement is by notification alone
        "GATELINE_HOLD_S": str(HOLD_S),
        "GATELINE_BUYER_ORDERS_MAX": "0",  # six buyers do the work of hundreds
        "GATELINE_SHARDS": str(shards),
        "GATELINE_QR_TTL_S": str(QR_TTL_S),
        "GATELINE_DATA_DIR": str(folder / "run"),
        **more,
    }
    links: dict[str, Link] = {}
    gatelines = {}
    held = {name: held_port() for name in (*SERVERS, *WORKERS)}  # so that no link takes it
    for name in (*SERVERS, *WORKERS):
        for database_name, port in (("redis", valkey.port), ("postgres", postgres.port)):
            links[f"{name}>{database_name}"] = Link(f"{name}>{database_name}", port)
        port = held[name].getsockname()[1]
        own = {
            **settings,
            "GATELINE_PORT": str(port),
            "GATELINE_DATA_DIR": str(folder / "run" / name),
            "REDIS_URL": valkey.url.replace(f":{valkey.port}/", f":{links[f'{name}>redis'].port}/"),
            "DATABASE_URL": postgres.url.replace(f":{postgres.port}/", f":{links[f'{name}>postgres'].port}/"),
        }
        if name in SERVERS:
            links[f"clients>{name}"] = Link(f"clients>{name}", port)
        words = ("serve", "--workers", str(workers)) if name in SERVERS else ("work",)
        gatelines[name] = Gateline(name, words, own, clocks[name])
    for plug in held.values():
        plug.close()
    valkey_part, postgres_part = DatabasePart("valkey", valkey), DatabasePart("postgres", postgres)
    for part in (valkey_part, postgres_part):
        await part.start()
    return Installation(folder, ack, settings, valkey_part, postgres_part, gatelines, links, clocks, secret)


async def follow(installed: Installation) -> None:
    """Start a Valkey of its own that copies the present one, and wait until it has caught up."""
    primary = installed.valkey.server
    assert isinstance(primary, ClockedValkey)
    name = f"replica-{len(installed.spare) + 1}"
    replica = ClockedValkey(installed.folder / name, Clock(installed.folder, name), appendfsync="always")
    replica.password = primary.password  # after a failover it is asked with the same one
    replica.become("--replicaof", f"127.0.0.1 {primary.port}")
    installed.spare.append(replica)
    installed.replica = DatabasePart("replica", replica)
    await installed.replica.start()
    await _synchronised(replica)


async def _synchronised(replica: ClockedValkey) -> None:
    async with Redis.from_url(replica.url, decode_responses=True) as redis, asyncio.timeout(30):
        while (await redis.info("replication")).get("master_link_status") != "up":
            await asyncio.sleep(0.05)


async def _erase_spare(installed: Installation) -> None:
    for server in installed.spare:
        await asyncio.to_thread(server.erase)
