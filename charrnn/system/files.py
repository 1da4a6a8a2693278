"""Files that are written whole or not at all, and never replace an input."""

import errno
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import UserError

try:
    import fcntl
except ImportError:  # on Windows, where an open file cannot be removed either
    fcntl = None  # type: ignore[assignment]

RUN_SUFFIXES = (".net", ".resume", ".jsonl")  # of the files that a run writes
# flags of os.open to follow no link, and not to wait for the other end of a FIFO
NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
ADVICE = {  # by the number of the system's error
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "make room there, or raise the limit on a file's size",
    errno.EACCES: "change its permissions, or choose another name",
    errno.EPERM: "change its permissions, or choose another name",
    errno.EROFS: "choose a folder that can be written",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def reason(error: OSError | ValueError, otherwise: str = "choose another name") -> str:
    """Return the system's reason for an error and what to do: ``otherwise`` if it is a rare one."""
    number, words = getattr(error, "errno", None), getattr(error, "strerror", None)
    return f"{words or error}; {ADVICE.get(number or 0, otherwise)}"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a new file that replaces ``path`` at the end, or leaves it unchanged if anything fails.

    If ``path`` is a symbolic link, its target is replaced. Temporary files of killed processes are
    removed. Raises OSError that names ``path``, also if that is a read-only file.
    """
    with _naming(path):
        target = _target(path)
        remove_leftovers(target.parent, re.escape(target.name))
        file, partial = _create(target)
        try:
            with file:
                if target.exists():
                    mode = target.stat().st_mode & 0o777
                    os.chmod(partial if fcntl is None else file.fileno(), mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:  # Windows cannot rename an open file; elsewhere it stays locked
                    file.close()
                os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def open_output(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a file as ``atomic_file`` does, or a device or FIFO (/dev/stdout) opened directly."""
    # "ab", since /dev/stdout may be a file that is not empty
    output = open(path, "ab") if _is_special(path) else atomic_file(path)
    with _naming(path), output as file:
        yield file


def check_output(
    path: str | Path, inputs: Iterable[str | Path] = (), special: bool = False
) -> None:
    """Raises UserError if ``path`` could not be written later, or is one of the files ``inputs``.

    With ``special``, devices and FIFOs are allowed, for ``open_output``.
    """
    try:
        if special and _is_special(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            file, partial = _create(_target(path))
            file.close()
            partial.unlink()
        read = next((source for source in inputs if _are_same(path, source)), None)
    except (OSError, ValueError) as error:  # ValueError: not a valid name, such as "a\0b"
        problem = reason(error, "name another file")
        raise UserError(f"{path}: cannot be written: {problem}") from None
    if read is not None:
        raise UserError(f"{path}: is the same file as the input {read}; choose another name")


@contextmanager
def scratch_file(folder: str | Path | None = None) -> Iterator[BinaryIO]:
    """Yield a temporary file without a name, in ``folder`` or TMPDIR. Raises UserError if that is
    full."""
    where = folder or tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=where) as file:
            yield file
    except OSError as error:
        problem = reason(error, "set TMPDIR to a folder for temporary files")
        raise UserError(f"{where}: {problem}") from None


def require_regular(path: str | Path, what: str) -> None:
    """Raises UserError, with the advice to give ``what``, if ``path`` is missing, a folder, a
    device or a FIFO.

    Nothing is opened, since a FIFO would block, and a device may never end.
    """
    try:
        mode = os.stat(path).st_mode
        problem = "a folder" if stat.S_ISDIR(mode) else "a device or FIFO"
        if stat.S_ISREG(mode):
            return
    except FileNotFoundError:
        problem = "no such file"
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    raise UserError(f"{path}: {problem}; give {what}")


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Name ``path`` in the OSError of a failed write ("No space left on device")."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).endswith(".tmp")):
            error.filename = str(path)
        raise


def _target(path: str | Path) -> Path:
    """Return the file that ``path`` links to. Raises OSError if it must not be replaced."""
    target = Path(os.path.realpath(path))
    problem = None
    if target.is_dir():
        problem = errno.EISDIR, "it is a folder"
    elif not target.parent.is_dir():
        problem = errno.ENOENT, f"there is no folder {target.parent}"
    elif _is_special(path):
        problem = errno.EINVAL, "it is a device or FIFO, not a regular file"
    elif target.is_symlink():
        problem = errno.ELOOP, "its links form a circle"
    elif target.exists() and not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK)):
        problem = errno.EACCES, "the file is read-only"  # which os.replace ignores
    if problem:
        raise OSError(*problem, str(path))
    return target


def _is_special(path: str | Path) -> bool:
    """Return whether ``path`` is a device, a FIFO, a socket, or a name such as /dev/stdout."""
    if re.match(r"/dev/(std|fd/)|/proc/\w+/fd/", os.path.abspath(path)):
        return True
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _are_same(one: str | Path, two: str | Path) -> bool:
    """Return whether two names are of the same file, by links, hard links, case or ``./``."""
    try:  # a terminal may be both input and output
        return os.path.samefile(one, two) and not stat.S_ISCHR(os.stat(one).st_mode)
    except OSError:  # one of them does not exist yet
        return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(two))


def _create(target: Path) -> tuple[BinaryIO, Path]:
    """Return a new temporary file beside ``target``, and its name. It is locked while it is open,
    which shows that its writer is alive."""
    while True:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        file = partial.open("xb")  # "x": fails for a file or link that exists
        if fcntl is not None:
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if fcntl is None or is_at(file.fileno(), partial):
            return file, partial
        file.close()  # another writer removed it before it was locked, as a leftover


def remove_leftovers(folder: Path, name: str) -> None:
    """Delete the temporary files that killed writers left in a folder, which no process locks.
    ``name`` is a pattern for the names of the files that they were writing."""
    pattern = re.compile(rf"\.{name}\.[0-9a-f]{{16}}\.tmp")
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if pattern.fullmatch(path.name)]:
            if path.is_file() and not path.is_symlink():
                with suppress(OSError):
                    _remove_if_unlocked(path)


def _remove_if_unlocked(path: Path) -> None:
    """Delete ``path``. Raises OSError if a living process is writing it."""
    if fcntl is None:
        os.unlink(path)
        return
    with open(os.open(path, os.O_RDWR | NOT_THROUGH_LINKS), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether this open file is (still) the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
