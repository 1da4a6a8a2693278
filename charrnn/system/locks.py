"""Locks, so that no two processes write the files of a run at the same time."""

import functools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from charrnn.errors import UserError
from charrnn.system.console import say
from charrnn.system.files import NOT_THROUGH_LINKS, fcntl, is_at, reason


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold a lock for training into ``path``. The lock of a process that has ended is free.

    Raises UserError with the process id of the one that holds it. If the file system has no locks,
    a warning is printed once, on stderr.
    """
    if fcntl is None:  # on Windows
        yield
        return
    target = Path(os.path.realpath(path))
    lock = target.with_name(f".{target.name}.lock")
    descriptor = _open_lock(lock)
    while _flock(descriptor, path) and not is_at(descriptor, lock):
        os.close(descriptor)  # its last holder has removed it since
        descriptor = _open_lock(lock)
    try:
        with suppress(OSError):  # on a full disk the lock works without its text
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        if is_at(descriptor, lock):
            lock.unlink()
        os.close(descriptor)


def _open_lock(lock: Path) -> int:
    """Return a descriptor of the lock file. Raises UserError if something else has its name, which
    is left as it is."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | NOT_THROUGH_LINKS, 0o666)
    except OSError as error:
        raise UserError(f"{lock}: cannot be opened: {reason(error, 'remove it')}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # a hard link to someone's file
        os.close(descriptor)
        raise UserError(f"{lock}: not a lock file of this program; remove it")
    return descriptor


def _flock(descriptor: int, path: str | Path) -> bool:
    """Lock the file and return True, or return False if the file system has no locks.

    Raises UserError if another process holds the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.pread(descriptor, 20, 0)
        holder = f"process {number.decode()}" if number.isdigit() else "another process"
        os.close(descriptor)
        advice = "wait for it, or name another file"
        raise UserError(f"{path}: {holder} is training into it; {advice}") from None
    except OSError as error:
        _say_unlocked(os.path.dirname(os.path.abspath(path)), error.strerror)
        return False
    return True


@functools.cache
def _say_unlocked(folder: str, reason: str) -> None:
    say(f"{folder}: files cannot be locked there ({reason}); start no second run with these names")
