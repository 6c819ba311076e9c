"""Processes see each other by locks, and a look takes none away."""

import fcntl
import threading

from pipeline import locks


def test_what_is_held_is_seen_until_it_is_closed(tmp_path):
    path = tmp_path / "alive"
    assert not locks.is_held(path)
    first, second = locks.hold(path), locks.hold(path)  # both have it
    assert locks.is_held(path)
    first.close()
    assert locks.is_held(path)
    second.close()
    assert not locks.is_held(path)


def test_a_short_look_does_not_keep_a_process_from_the_lock(tmp_path):
    path = tmp_path / "alive"
    with path.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        threading.Timer(0.2, looking.close).start()
        with locks.hold(path):
            assert locks.is_held(path)


def test_a_lock_that_another_keeps_is_not_waited_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_S", 0.1)
    path = tmp_path / "alive"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        locks.hold(path).close()
    assert not locks.is_held(path)
