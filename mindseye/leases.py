"""Being the only one: a lock file with a heartbeat, taken over from the dead. Nothing heavy is imported here.

filelock's lease: a file created exclusively (which NFS does atomically, unlike flock) that names its owner, whose
modification time a thread of the owner's moves. One whose owner was a process of this host that is dead is taken over
at once, any other after its duration without a beat.
"""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import SoftFileLease, Timeout


def take(
    lock: SoftFileLease,
    beat_s: float,
    *,
    wait: bool,
    unless: Callable[[], bool] | None = None,
    waiting: Callable[[], None] | None = None,
) -> bool:
    """Acquire it; False where somebody else holds it who is alive, unless told to `wait`.

    unless: asked again and again meanwhile; where it says so the lock is no longer wanted: False. waiting: called
    once, when somebody else has it. Raises OSError where a dead owner's file cannot be removed.
    """
    while True:
        last = signs_of_life(lock.lock_file)
        # Not without any time: a lock that was created this moment does not say yet whose it is.
        for seconds in (0.0 if last is None else beat_s / 10, 2 * beat_s, 1.5 * lock.lease_duration):
            with suppress(Timeout):
                lock.acquire(timeout=seconds, poll_interval=beat_s / 10, cancel_check=unless)
                return True
            if unless is not None and unless():
                return False
            if waiting is not None and seconds:
                waiting()
                waiting = None
            if signs_of_life(lock.lock_file) != last:
                break
        else:  # no sign of life for longer than a lease, and yet not given away: an empty file, say
            put_aside(Path(lock.lock_file), last)
            if signs_of_life(lock.lock_file) == last:
                raise OSError(f"{lock.lock_file} is left by a dead process and cannot be removed")
            continue
        if not wait and signs_of_life(lock.lock_file) is not None:
            return False


def signs_of_life(lock: str) -> tuple[int, int] | None:
    """What changes with every beat, and with every new owner; None where there is no lock."""
    with suppress(OSError):
        status = os.lstat(lock)
        return status.st_ino, status.st_mtime_ns
    return None


def put_aside(lock: Path, judged: tuple[int, int] | None) -> None:
    """Remove a dead owner's lock where filelock cannot: it swaps two names in one step, which NFS and others refuse.

    A rename instead: of several takers one gets the file. Who gets another than was `judged`, because somebody was
    quicker and holds a new lock, puts it back; the short absence does not disturb its owner.
    """
    aside = lock.with_name(f"{lock.name}.dead.{secrets.token_hex(8)}")
    with suppress(OSError):
        os.rename(lock, aside)
        if signs_of_life(os.fspath(aside)) != judged:
            with suppress(FileExistsError):
                os.link(aside, lock)
        aside.unlink()
