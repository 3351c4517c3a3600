"""Servers of a test's own, to be stopped and killed, and real processes beside this one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from server.dev.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.processes import GATELINE, Process

Spawn = Callable[..., Awaitable[Process]]


@pytest.fixture
async def spawn(environment: dict[str, str]) -> AsyncIterator[Spawn]:
    """Starts `gateline WORDS` as a process on the test's databases; those still there at the end are killed."""
    running: list[Process] = []

    async def start(
        *words: str, program: tuple[str, ...] = GATELINE, log_level: str = "warning", **settings: str
    ) -> Process:
        process = await Process.start((*program, *words), {**environment, **settings}, log_level=log_level)
        running.append(process)
        return process

    yield start
    for process in running:
        await process.kill()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey of this test alone, which writes to disk before it answers."""
    with EmbeddedValkey(tmp_path / "valkey-data") as valkey:
        yield valkey


@pytest.fixture(scope="module")
def module_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres of this module alone."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("own-postgres"))
    try:
        yield postgres
    finally:
        postgres.erase()


@pytest.fixture
def own_postgres(module_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The same, running, whatever the test before left behind."""
    if not module_postgres.running:
        module_postgres.start()
    return module_postgres
