"""Files that are written whole or not at all, and never onto one that is read."""

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
except ImportError:  # on Windows; there an open file can be neither locked so nor removed
    fcntl = None

RUN_SUFFIXES = (".net", ".resume", ".jsonl")  # of the files that a run writes
NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # nor waiting
ADVICE = {  # by what the system says
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
    """The system's reason for an error, and what to do about it: ``otherwise`` for rare ones."""
    number, words = getattr(error, "errno", None), getattr(error, "strerror", None)
    return f"{words or error}; {ADVICE.get(number, otherwise)}"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that replaces ``path`` at the end, or leaves it alone if anything fails.

    Of a symbolic link the target is replaced, where it lies. What a killed process left of an
    earlier try is removed. Raises OSError that names ``path``, for a read-only file too.
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
                if fcntl is None:  # Windows renames no open file; elsewhere the lock is held on
                    file.close()
                os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def open_output(path: str | Path) -> Iterator[BinaryIO]:
    """As ``atomic_file``, but a device or FIFO (/dev/null, /dev/stdout) is written to as it is."""
    if not _is_special(path):
        with atomic_file(path) as file:
            yield file
    else:  # append, since /dev/stdout may be a file in which something stands already
        with _naming(path), open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as file:
            yield file


def check_output(
    path: str | Path, inputs: Iterable[str | Path] = (), special: bool = False
) -> None:
    """Raises UserError now for what could not be written later, or is one of ``inputs``.

    ``special``: devices and FIFOs are welcome, as ``open_output`` takes them.
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
    except (OSError, ValueError) as error:  # ValueError: no name at all, as "a\0b"
        problem = reason(error, "name another file")
        raise UserError(f"{path}: cannot be written: {problem}") from None
    if read is not None:
        raise UserError(f"{path}: is the file {read}, which is read; choose another name to write")


@contextmanager
def scratch_file(folder: str | Path | None = None) -> Iterator[BinaryIO]:
    """A temporary file without a name, in ``folder`` or TMPDIR. UserError: it is full."""
    where = folder or tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=where) as file:
            yield file
    except OSError as error:
        problem = reason(error, "set TMPDIR to a folder for temporary files")
        raise UserError(f"{where}: {problem}") from None


def require_regular(path: str | Path, what: str) -> None:
    """Raises UserError, "give ``what``", for a missing file, a folder, a device or a FIFO.

    Nothing is opened: a FIFO would block, and a device may never end.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        if isinstance(error, FileNotFoundError):
            problem = "no such file"
    else:
        if stat.S_ISREG(mode):
            return
        problem = "a folder" if stat.S_ISDIR(mode) else "a device or FIFO"
    raise UserError(f"{path}: {problem}; give {what}")


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Have a failed write ("No space left on device") name the file that was meant."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).endswith(".tmp")):
            error.filename = str(path)
        raise


def _target(path: str | Path) -> Path:
    """The file that ``path`` leads to. Raises OSError where it may not be replaced."""
    target = Path(os.path.realpath(path))
    problem = None
    if target.is_dir():
        problem = errno.EISDIR, "it is a folder"
    elif not target.parent.is_dir():
        problem = errno.ENOENT, f"there is no folder {target.parent}"
    elif _is_special(path):
        problem = errno.EINVAL, "it is a device or FIFO, not a regular file"
    elif target.is_symlink():
        problem = errno.ELOOP, "its links lead round in a circle"
    elif target.exists() and not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK)):
        problem = errno.EACCES, "the file is read-only"  # replacing it would not ask
    if problem:
        raise OSError(*problem, str(path))
    return target


def _is_special(path: str | Path) -> bool:
    """Whether ``path`` is a device, a FIFO, a socket, or an open file by the system's name."""
    if re.match(r"/dev/(std|fd/)|/proc/\w+/fd/", os.path.abspath(path)):
        return True
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _are_same(one: str | Path, two: str | Path) -> bool:
    """Whether both names are of one file: links, hard links, another case, ``./``."""
    try:
        first, second = os.stat(one), os.stat(two)
    except OSError:  # one of them is not there yet
        first, second = (os.path.normcase(os.path.realpath(name)) for name in (one, two))
        return first == second
    return os.path.samestat(first, second) and not stat.S_ISCHR(first.st_mode)  # a terminal is both


def _create(target: Path) -> tuple[BinaryIO, Path]:
    """A new file beside ``target``, and its name. While open it is locked: its writer lives."""
    while True:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        file = partial.open("xb")  # exclusively: never a file or link that was put there
        if fcntl is None:
            return file, partial
        with suppress(OSError):  # not every file system can
            fcntl.flock(file, fcntl.LOCK_EX)
        if is_at(file.fileno(), partial):
            return file, partial
        file.close()  # another writer took it for a dead one's just before it was locked


def remove_leftovers(folder: Path, name: str) -> None:
    """Delete what killed writers of files whose names match the pattern ``name`` left half-written
    in a folder: temporary files that nobody locks."""
    pattern = re.compile(rf"\.{name}\.[0-9a-f]{{16}}\.tmp")
    with suppress(OSError):
        for entry in [e for e in os.scandir(folder) if pattern.fullmatch(e.name)]:
            if entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_unlocked(entry.path)


def _remove_if_unlocked(path: str) -> None:
    """Raises OSError where a living process has ``path`` open to write."""
    if fcntl is None:
        os.unlink(path)
        return
    with open(os.open(path, os.O_RDWR | NOT_THROUGH_LINKS), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether this open file is (still) the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
