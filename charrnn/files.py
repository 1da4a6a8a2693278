"""Files that are written whole or not at all, never onto one that is read, by one process."""

import errno
import functools
import itertools
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows; there an open file can be neither locked so nor removed
    fcntl = None

from charrnn.console import say
from charrnn.errors import UserError

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
        if _is_at(file.fileno(), partial):
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


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether this open file is (still) the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


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
    while _flock(descriptor, path) and not _is_at(descriptor, lock):
        os.close(descriptor)  # its last holder removed it just now
        descriptor = _open_lock(lock)
    try:
        with suppress(OSError):  # on a full disk the lock is one all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        if _is_at(descriptor, lock):
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


def free_number(paths: Iterable[Path]) -> int:
    """The lowest number under which none of ``paths`` has been set aside."""
    targets = [_where(path) for path in paths]
    for n in itertools.count(1):
        if not any(os.path.lexists(_numbered(target, n)) for target in targets):
            return n


def set_aside(paths: list[Path]) -> list[tuple[Path, Path]]:
    """Rename those of an earlier run's files that exist, all with one number: (old, new) names.

    ``rnn.net`` becomes ``rnn.1.net``, ``lr_0.01`` becomes ``lr_0.01.1``. A symbolic link stays and
    its target is renamed, where it lies. Raises OSError; never overwrites anything.
    """
    n = free_number(paths)
    moved = []
    for path in paths:
        if os.path.isfile(path):
            old, new = _where(path), _numbered(_where(path), n)
            with new.open("xb"):  # takes the name, or fails; not every file system has hard links
                pass
            try:
                os.replace(old, new)
            except OSError:
                new.unlink()
                raise
            moved.append((path, new))
    return moved


def _where(path: Path) -> Path:
    """The file itself, as the user named it unless that is a link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _numbered(path: Path, n: int) -> Path:
    if path.suffix in RUN_SUFFIXES:
        return path.with_suffix(f".{n}{path.suffix}")
    return path.with_name(f"{path.name}.{n}")
