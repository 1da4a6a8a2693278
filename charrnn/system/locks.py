"""One process at a time trains into a name."""

import errno
import functools
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from charrnn.errors import UserError
from charrnn.system.console import say
from charrnn.system.files import (
    NOT_THROUGH_LINKS,
    is_at,
    reason,
)

try:
    import fcntl
except ImportError:  # on Windows; there an open file can be neither locked so nor removed
    fcntl = None


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep a second process from training into ``path``; the lock of a dead process is free.

    Raises UserError with the process id of the one that has it. Where the file system knows no
    locks, that is said once, on stderr.
    """
    if fcntl is None:
        yield
        return
    target = Path(os.path.realpath(path))
    lock = target.with_name(f".{target.name}.lock")
    descriptor = _open_lock(lock)
    while _flock(descriptor, path) and not is_at(descriptor, lock):
        os.close(descriptor)  # its last holder removed it just now
        descriptor = _open_lock(lock)
    try:
        with suppress(OSError):  # on a full disk the lock is one all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        if is_at(descriptor, lock):
            lock.unlink()
        os.close(descriptor)


def _open_lock(lock: Path) -> int:
    """Raises UserError for anything at its name but a plain file, which is then left as it is."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | NOT_THROUGH_LINKS, 0o666)
    except OSError as error:
        problem = reason(error, "remove it")
        raise UserError(f"{lock}: cannot be opened: {problem}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # a hard link to someone's file
        os.close(descriptor)
        raise UserError(f"{lock}: not a lock file of ours; remove it")
    return descriptor


def _flock(descriptor: int, path: str | Path) -> bool:
    """Lock; False where that is not possible. Raises UserError if another process has the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
            _say_unlocked(os.path.dirname(os.path.abspath(path)), error.strerror)
            return False
        number = re.match(rb"\d*", os.pread(descriptor, 20, 0)).group().decode()
        os.close(descriptor)
        raise UserError(
            f"{path}: {f'process {number}' if number else 'another process'} is training into it; "
            "wait for it, or name another file"
        ) from None
    return True


@functools.cache
def _say_unlocked(folder: str, reason: str) -> None:
    say(f"{folder}: files cannot be locked there ({reason}); start no second run with these names")
