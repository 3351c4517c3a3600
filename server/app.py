"""The composition root: every resource is made here, once, and handed to those who need it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from server.config import Ack, Config
from server.domain.errors import Refusal
from server.flows.admit import Admission
from server.flows.checkout import Checkout
from server.flows.directory import DirectoryFollower
from server.flows.lookup import TicketLoader
from server.flows.payment import Payments
from server.flows.publish import Publisher
from server.flows.settle import Settlement
from server.flows.shop import Shop
from server.flows.staff import StaffDoor
from server.flows.upload import Uploads
from server.flows.wallet import Wallet
from server.hot import keys
from server.hot.backlog import Backlog
from server.hot.connection import connect, verify_ack
from server.hot.epoch import Epochs
from server.hot.redeem import Redeemer
from server.hot.scripts import ScriptRunner
from server.hot.stock import Stock
from server.hot.stream import Streams
from server.hot.throttle import Throttle
from server.hot.tickets import GateTickets
from server.jobs.flusher import Flusher
from server.jobs.loops import Jobs
from server.jobs.rehydrate import Rehydration
from server.keyring import Keyring
from server.limits import (
    ASKED_AT_ONCE_MAX,
    BACKLOG_POLL_S,
    BODY_BYTES_MAX,
    POSTGRES_BULK_S_MAX,
    POSTGRES_USE_S_MAX,
)
from server.paying import Paying, Sessions, compose, open_sessions
from server.store.pool import Database
from server.telemetry import alert
from server.web import appkeys, pages, scanning, stream
from server.web.endpoint import endpoint
from server.web.errors import answer_everything, expect
from server.web.openapi import describe
from server.web.routes import ROUTES, Route
from server.web.stream import Gates
from server.web.tally import Tally

VERSION: Final = version("gateline")
# Outbox, expiry, rehydration, one spare; reconciling, closing
_JOB_CONNECTIONS: Final = 4 + 2 * ASKED_AT_ONCE_MAX
_REPORT_CONNECTIONS: Final = 2  # two long reports at a time: a third waits, a settlement does not


@dataclass(frozen=True)
class Parts:
    """The resources of one process: connections, and what is built on them."""

    config: Config
    keyring: Keyring
    redis: Redis
    database: Database  # short calls: orders, settlement, tickets
    bulk_database: Database  # long calls: jobs, so that they never take a settlement's connection
    reports_database: Database  # the longest calls, so that they take nobody's
    streams: Streams
    epochs: Epochs
    stock: Stock
    throttle: Throttle
    gate: GateTickets
    redeemer: Redeemer
    directory: DirectoryFollower
    paying: Paying  # by requests
    jobs_paying: Paying  # by jobs, so that they never take a request's connection
    loader: TicketLoader
    publisher: Publisher
    flusher: Flusher
    rehydration: Rehydration

    @property
    def provider(self) -> Payments:
        """The gateways, as requests ask them."""
        return self.paying.provider

    @property
    def settlement(self) -> Settlement:
        """The settlement of requests."""
        return self.paying.settlement

    @property
    def stream_names(self) -> list[str]:
        """The streams of the configured number of shards."""
        return keys.streams(self.config.shards)


@asynccontextmanager
async def open_parts(config: Config) -> AsyncIterator[Parts]:
    """Make the resources of a process, and close them at the end. `config` names both databases.

    Raises AckError when Redis's policy is weaker than the acknowledgement level. Neither database needs to be up.
    """
    if config.redis_url is None or config.database_url is None:
        raise ValueError("both databases must be named here: the command line starts embedded ones before")
    async with AsyncExitStack() as stack:
        redis = connect(config.redis_url)
        stack.push_async_callback(redis.aclose, close_connection_pool=True)
        await verify_ack(redis, config.ack)
        database = Database(config.database_url, size_max=config.postgres_pool, use_s=POSTGRES_USE_S_MAX)
        stack.push_async_callback(database.close)
        job_connections = _JOB_CONNECTIONS + len(keys.streams(config.shards))
        bulk = Database(config.database_url, size_max=job_connections, call_s=POSTGRES_BULK_S_MAX)
        stack.push_async_callback(bulk.close)
        reports = Database(config.database_url, size_max=_REPORT_CONNECTIONS, call_s=POSTGRES_BULK_S_MAX)
        stack.push_async_callback(reports.close)
        sessions = await stack.enter_async_context(open_sessions())
        runner = ScriptRunner(redis, config.ack, gates=Epochs(redis, config.shards).names)
        stack.push_async_callback(runner.aclose)
        counting = ScriptRunner(
            redis, Ack.MEMORY
        )  # attempts may be lost with Redis: no replica is waited for
        stack.push_async_callback(counting.aclose)
        throttle = Throttle(redis, counting, guests_a_minute_max=config.guests_a_minute_max)
        yield _assemble(config, redis, runner, throttle, database, bulk, reports, sessions)


def _assemble(
    config: Config,
    redis: Redis,
    runner: ScriptRunner,
    throttle: Throttle,
    database: Database,
    bulk: Database,
    reports: Database,
    sessions: Sessions,
) -> Parts:
    keyring = Keyring(config)
    keyring.tell()
    streams = Streams(redis)
    epochs = Epochs(redis, config.shards)
    stock = Stock(redis, runner, buyer_orders_max=config.buyer_orders_max, window_s=config.hold_s)
    gate = GateTickets(redis, runner, config.shards)
    loader = TicketLoader(database, streams, gate, config.shards)
    bulk_loader = TicketLoader(bulk, streams, gate, config.shards)
    flusher = Flusher(bulk, streams)
    paying = compose(config, keyring, database, stock, sessions, throttle)
    return Parts(
        config=config,
        keyring=keyring,
        redis=redis,
        database=database,
        bulk_database=bulk,
        reports_database=reports,
        streams=streams,
        epochs=epochs,
        stock=stock,
        throttle=throttle,
        gate=gate,
        redeemer=Redeemer(runner, config.shards),
        directory=DirectoryFollower(database),
        paying=paying,
        jobs_paying=compose(config, keyring, bulk, stock, sessions, throttle),
        loader=loader,
        publisher=Publisher(bulk, stock, bulk_loader),
        flusher=flusher,
        rehydration=Rehydration(
            bulk,
            redis,
            streams,
            epochs,
            bulk_loader,
            flusher,
            config.shards,
            durable=config.ack is not Ack.MEMORY,
        ),
    )


def build_jobs(parts: Parts) -> Jobs:
    """All jobs of a process."""
    return Jobs(
        parts.bulk_database,
        parts.flusher,
        parts.publisher,
        parts.rehydration,
        parts.jobs_paying.provider,
        parts.jobs_paying.settlement,
        parts.stream_names,
    )


def build_app(parts: Parts, *, metrics_dir: Path | None = None, jobs: Jobs | None = None) -> web.Application:
    """The HTTP application on these resources; with `jobs`, they run as long as it does."""
    config, keyring = parts.config, parts.keyring
    if keyring.qr is None or keyring.tokens is None:
        raise ValueError("a server needs keys for QR and bearer tokens")
    app = web.Application(middlewares=[answer_everything], client_max_size=BODY_BYTES_MAX)
    backlog = Backlog(
        parts.streams,
        parts.epochs,
        parts.stream_names,
        entries_max=config.stream_entries_max,
        memory_mb_max=config.redis_memory_mb_max,
    )
    app[appkeys.CONFIG] = config
    app[appkeys.TOKENS] = keyring.tokens
    app[appkeys.GATEWAY_SECRETS] = keyring.gateway
    app[appkeys.DIRECTORY] = parts.directory
    app[appkeys.SHOP] = Shop(parts.directory, parts.stock)
    app[appkeys.CHECKOUT] = Checkout(
        parts.database,
        parts.directory,
        parts.stock,
        parts.paying.lookup,
        parts.settlement,
        parts.provider,
        parts.throttle,
        hold_s=config.hold_s,
    )
    app[appkeys.SETTLEMENT] = parts.settlement
    if keyring.merchant is not None:
        app[appkeys.MERCHANT] = keyring.merchant
    if parts.paying.wechat is not None:
        app[appkeys.WECHAT_DOOR] = parts.paying.wechat.door
        app[appkeys.WECHAT_NEWS] = parts.paying.wechat.news
    app[appkeys.WALLET] = Wallet(
        parts.database, parts.gate, keyring.qr, parts.throttle, qr_ttl_s=config.qr_ttl_s
    )
    app[appkeys.THROTTLE] = parts.throttle
    admission = Admission(
        parts.directory,
        parts.redeemer,
        parts.loader,
        backlog,
        keyring.qr,
        offline_window_s=config.offline_window_s,
    )
    app[appkeys.ADMISSION] = admission
    app[appkeys.UPLOADS] = Uploads(admission)
    app[appkeys.STAFF_DOOR] = StaffDoor(parts.database, parts.throttle)
    app[appkeys.BACKLOG] = backlog
    app[appkeys.DATABASE] = parts.database
    app[appkeys.REPORTS_DATABASE] = parts.reports_database
    app[appkeys.TALLY] = Tally("POST", scanning.PATH)
    app[appkeys.STREAM_TALLY] = Tally("GET", stream.PATH)
    app[stream.GATES] = Gates()
    app[appkeys.METRICS] = metrics_dir
    _add_routes(
        app,
        [
            route
            for route in ROUTES
            if (config.demo_login or not route.demo_only)
            and (config.guest_login or not route.guest_only)
            and (parts.paying.wechat is not None or not route.wechat_only)
        ],
    )
    app.on_shutdown.append(_send_gates_away)
    app.cleanup_ctx.append(_background(parts, backlog, jobs))
    return app


def _add_routes(app: web.Application, routes: Sequence[Route]) -> None:
    for route in routes:
        app.router.add_route(route.method, route.path, endpoint(route), expect_handler=expect)
    app.router.add_get("/static/{file:.+}", pages.static_file, expect_handler=expect)
    app[appkeys.OPENAPI] = msgspec.json.encode(describe(app, routes, version=VERSION))


def _background(
    parts: Parts, backlog: Backlog, jobs: Jobs | None
) -> Callable[[web.Application], AsyncIterator[None]]:
    """What runs beside the handlers: following the catalog, watching the backlog, and the jobs."""

    async def run(app: web.Application) -> AsyncIterator[None]:
        with suppress(Refusal):  # Postgres may be away: then the follower goes on trying
            await parts.directory.refresh()
        await backlog.look()
        gates = app[stream.GATES]
        beside = (parts.directory.follow(), _watch(backlog), gates.watch())
        tasks = [asyncio.create_task(each) for each in beside]
        running = None if jobs is None else asyncio.create_task(jobs.run())
        yield
        await parts.redeemer.drain()
        if jobs is not None and running is not None:
            jobs.stop()
            await running
        await _cancel(tasks)

    return run


async def _send_gates_away(app: web.Application) -> None:
    await app[stream.GATES].stop()


async def _watch(backlog: Backlog) -> None:
    """Look for ever, whatever happens: figures that stay would let Redis fill up unseen."""
    while True:
        await asyncio.sleep(BACKLOG_POLL_S)
        try:
            await backlog.look()
        except Exception as fault:
            alert("BACKLOG_UNSEEN", error=type(fault).__name__)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
