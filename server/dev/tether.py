"""Becomes another program, tied to the life of the process that started it.

Run as a file by `process.spawn`, never imported by the server:

    python -I -S tether.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM [ARGUMENT...]

A small program of its own rather than subprocess's `preexec_fn`: that one runs Python code between fork and
exec of a process with threads, which can hang and which Python 3.12 warns about. UID and GID are -1 when the
account stays. Nothing here may come from outside the standard library.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>: "signal me when the thread that forked me ends"; Linux only
EXIT_ORPHANED = 125  # the owner had died before the tie was made
EXIT_NOT_STARTED = 126  # the program could not be executed; the reason is on stderr


def main() -> None:
    """Changes the account, makes the tie, and executes the program; returns never."""
    parent_pid, death_signal, uid, gid = (int(word) for word in sys.argv[1:5])
    program = sys.argv[5:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of account, which would clear it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent_pid:
            sys.exit(EXIT_ORPHANED)
    try:
        os.execv(program[0], program)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"cannot execute {program[0]}: {error}\n")
        sys.exit(EXIT_NOT_STARTED)


if __name__ == "__main__":
    main()
