"""Locks on files, by which processes see each other."""

import fcntl
from pathlib import Path


def is_held(path: Path) -> bool:
    """Whether another process has a lock on a file; the file is made if it isn't there."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
