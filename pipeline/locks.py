"""Locks on files, by which processes see each other."""

import fcntl
import time
from pathlib import Path
from typing import IO

PATIENCE_S = 1.0  # much longer than `is_held` takes
PAUSE_S = 0.05


def hold(path: Path) -> IO[str]:
    """Open a file and share the lock on it, which ends with the process or the file.

    Goes on without the lock if another process keeps it for itself for `PATIENCE_S`.
    """
    handle, end = path.open("w"), time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > end:
                return handle
            time.sleep(PAUSE_S)


def is_held(path: Path) -> bool:
    """Whether another process has a lock on a file; the file is made if it isn't there."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
