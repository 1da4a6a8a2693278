"""Find the files of a text, read their characters, and make the text's fingerprint."""

import codecs
import errno
import hashlib
import io
import math
import os
import pydoc_data.topics
import re
import select
import stat
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import UserError
from charrnn.system.files import RUN_SUFFIXES, require_regular, scratch_file
from charrnn.text.encodings import recognise, suggest

BLOCK = 1 << 21  # bytes of text read at a time; at least 4, to hold a byte-order mark
STDIN = ("-", "/dev/stdin")
A_TEXT = "a text file, or a folder of them, with --data"
PAGE = '<meta name="generator" content="charrnn"'  # in the head of the pages that charrnn writes
NOT_WAITING = getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True)
class Source:
    """A file with text in it; a stream, which can be read only once, has a copy."""

    name: str
    copy: BinaryIO | None = None
    folder: str | None = None  # the folder it was found in; there it is left out if it is no text

    def blocks(self) -> Iterator[bytes]:
        """Yield its bytes. Raises UserError where they cannot be read."""
        try:
            with nullcontext(self.copy) if self.copy else _open(self.name) as file:
                file.seek(0)
                while raw := file.read(BLOCK):
                    yield raw
        except (OSError, ValueError) as error:
            raise _unreadable(self.name, error) from None


def _open(name: str) -> BinaryIO:
    return open(os.open(name, os.O_RDONLY | NOT_WAITING), "rb")


def _unreadable(name: str, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{name}: cannot be read: {reason}; give {A_TEXT}")


def open_source(name: str) -> Source:
    """Return a file as a source, or a copy of all that comes from stdin or a FIFO.

    Raises UserError for a missing file, and for a device, which may never end.
    """
    if name in STDIN:
        return Source(name, _copy(0, name))
    if Path(name).is_fifo():
        with open(name, "rb", buffering=0) as fifo:
            return Source(name, _copy(fifo.fileno(), name))
    require_regular(name, A_TEXT)
    return Source(name)


def _copy(descriptor: int, name: str) -> BinaryIO:
    """Return a temporary file with the rest of a stream."""
    blocks = read_stream(descriptor, name)
    first = next(blocks, b"")  # before there is a new file, which may get a closed stream's number
    with scratch_file() as file:
        file.writelines(chain([first], blocks))
        file.flush()
        return open(os.dup(file.fileno()), "rb")


def read_stream(descriptor: int, name: str) -> Iterator[bytes]:
    """Yield the bytes of an open stream as they come. Raises UserError for a closed stream, and for
    a device, which may never end."""
    try:
        if descriptor == 0 and sys.stdin is None:  # closed at the start: 0 may be another file now
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
            raise UserError(f"{name}: a device; give {A_TEXT}")
        while True:
            try:
                raw = os.read(descriptor, BLOCK)
            except BlockingIOError:  # a non-blocking stream with nothing to read yet
                select.select([descriptor], [], [])
                continue
            if not raw:
                return
            yield raw
    except OSError as error:
        raise _unreadable(name, error) from None


LeftOut = defaultdict[str, list[str]]  # names by the reason


@dataclass(frozen=True)
class Found:
    """What ``find_sources`` found."""

    name: str  # all names given
    sources: list[Source]
    left_out: dict[str, LeftOut]  # of each folder


def find_sources(data: list[str], earlier: str | None, known: tuple[str, ...]) -> Found:
    """Return the files named, with the files in it in place of a folder; and the names left out of
    folders. Only streams are opened. ``python-docs`` alone is the documentation inside Python.

    ``earlier`` is the fingerprint that the text should have: a folder's search ends where it has
    more bytes than that text. If ``known`` has names, only these are taken from a folder. Raises
    UserError for an address, and for a name that is no file.
    """
    if data == ["python-docs"]:
        topics = pydoc_data.topics.topics
        docs = "\n".join(topics[name] for name in sorted(topics)).encode()
        return Found("python-docs", [Source("python-docs", io.BytesIO(docs))], {})
    found = Found(" ".join(data), [], {})
    most = 8 * _size_of(earlier) + 4 if earlier is not None and not known else math.inf
    for name in data:
        if re.match(r"\w+://", name) and not os.path.exists(name):
            raise UserError(f"{name}: an address; download it first, then give the file's name")
        if not os.path.isdir(name):
            found.sources.append(open_source(name))
            continue
        paths, found.left_out[name] = _search(name, known, most)
        found.sources.extend(Source(str(path), folder=name) for path in sorted(paths))
    return found


def _search(folder: str, known: tuple[str, ...], most: float) -> tuple[list[Path], LeftOut]:
    """Return the files in a folder and all below it that may be texts, up to ``most`` bytes, and
    the names of the others by the reason. Links are followed, but nothing is found twice."""
    texts: list[Path] = []
    left_out: LeftOut = defaultdict(list)
    seen: set[tuple[int, int]] = set()
    wanted = {Path(folder, name) for name in known}
    wanted_folders = {parent for path in wanted for parent in path.parents}

    def note_unreadable(error: OSError) -> None:
        left_out["unreadable"].append(os.path.basename(error.filename))

    for where, folders, files in os.walk(folder, onerror=note_unreadable, followlinks=True):
        if kind := _seen_before(os.stat(where), seen):
            left_out[kind].append(os.path.basename(where))
            folders.clear()
            continue
        hidden = [name for name in folders if name.startswith(".")]
        left_out["hidden"] += hidden
        folders[:] = sorted(set(folders).difference(hidden))
        if known:
            folders[:] = [name for name in folders if Path(where, name) in wanted_folders]
        for path in (Path(where, name) for name in sorted(files)):
            kind = _kind(path, seen)
            if not kind and known and path not in wanted:
                kind = "not in the run's text"
            if kind:
                left_out[kind].append(path.name)
                continue
            texts.append(path)
            most -= path.stat().st_size
            if most < 0:
                return texts, left_out
    return texts, left_out


def _kind(path: Path, seen: set[tuple[int, int]]) -> str:
    """Return why a file in a folder is left out, by name and ``stat``; "" for a possible text."""
    if path.name.startswith("."):
        return "hidden"
    if path.suffix in (*RUN_SUFFIXES, ".ids"):
        return path.suffix
    if path.name.startswith("events.out.tfevents."):
        return "of TensorBoard"
    try:
        status = path.stat()
    except OSError:
        return "broken link" if path.is_symlink() else "unreadable"
    if not stat.S_ISREG(status.st_mode):
        return "device or FIFO"
    return _seen_before(status, seen) if status.st_size else "empty"  # also files as in /proc


def _seen_before(status: os.stat_result, seen: set[tuple[int, int]]) -> str:
    key = status.st_dev, status.st_ino
    if key in seen:
        return "found before under another name"
    seen.add(key)
    return ""


@dataclass(frozen=True)
class Identity:
    """What ``identify`` found out about a text."""

    sources: list[Source]  # the sources that are text
    encoding: str  # in which they were read
    fingerprint: str  # depends on the characters, not on their encoding and line ends
    size: int  # bytes of it in UTF-8
    notes: list[str]  # sentences on files left out and changed line ends
    ends: list[int]  # where each source ends: characters from the start, with added line ends


def identify(found: Found, encoding: str, earlier: str | None) -> Identity:
    """Read the sources once. Files found in a folder that are no text are left out.

    ``earlier`` is the fingerprint that the text must have. For another text, reading ends as soon
    as that is clear, and nothing is opened if the sizes of the files show it. Raises UserError for
    another text, where there is no text, and as ``read_blocks`` does for files that were named.
    """
    if earlier is not None and not _may_hold(found.sources, _size_of(earlier)):
        raise _another_text(found.name, is_longer=False)
    left_out = deepcopy(found.left_out)
    digest = _Digest(sys.maxsize if earlier is None else _size_of(earlier))
    texts, ends, problem = [], [], None
    changed: set[str] = set()
    for source in found.sources:
        after = digest.copy()
        try:
            kind = after.read(source, encoding, changed)
        except UserError as error:
            if source.folder is None:
                raise
            problem = problem or error
            kind = "not text" if os.access(source.name, os.R_OK) else "unreadable"
        if not kind:
            digest = after
            texts.append(source)
            ends.append(digest.n_chars)
        elif source.folder:
            left_out[source.folder][kind].append(os.path.basename(source.name))
        if digest.is_longer:
            break
    notes = _notes(left_out, [source.name for source in texts if source.name in changed])
    if problem and not texts:
        raise problem
    if not texts and not left_out:
        raise UserError(f"{found.sources[-1].name}: empty; give a file with some text in it")
    if not texts:
        folder = next(iter(left_out))
        raise UserError("; ".join([f"{folder}: no text in this folder", *notes, f"give {A_TEXT}"]))
    fingerprint = f"{digest.hash.hexdigest()}-{digest.size}"
    if digest.is_longer or earlier not in (None, fingerprint):
        raise _another_text(found.name, is_longer=fingerprint == earlier)
    return Identity(texts, encoding, fingerprint, digest.size, notes, ends)


class _Digest:
    """The fingerprint of a text, made file by file, of its first ``most`` bytes in UTF-8."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.hash, self.size = hashlib.sha256(b"1 utf-8"), 0
        self.n_chars = 0  # of the whole text so far
        self.is_longer = False  # the text has more than ``most`` bytes

    def copy(self) -> "_Digest":
        other = copy(self)
        other.hash = self.hash.copy()
        return other

    def read(self, source: Source, encoding: str, changed: set[str]) -> str:
        """Add the text of a source, up to ``most`` bytes in all; return why it is to be left out
        instead, or "".

        Its name is added to ``changed`` if its line ends are changed. Raises UserError as
        ``read_blocks`` does.
        """
        kind, last, begin = "empty", "\n", self.size
        for text in read_blocks(source, encoding, changed):
            if kind and source.folder and PAGE in text[:1024]:
                return "page of charrnn"
            kind, last = "", text[-1]
            raw = text.encode("utf-8", "surrogatepass")
            fits = raw[: self.most - self.size]
            self.hash.update(fits)
            self.size += len(fits)
            self.n_chars += len(text)
            if len(fits) < len(raw):
                self.is_longer = True
                break
        if self.size > begin:  # the same characters in other files are another text
            self.hash.update(b"\0%d\0" % (self.size - begin))
        self.n_chars += last != "\n"  # ``read_text`` adds a line end
        return kind


def _another_text(name: str, is_longer: bool) -> UserError:
    return UserError(
        f"{name}: not the text of that run{', but longer' if is_longer else ''}; a run resumes "
        "with its own text only: start a new one, with --init-from for its weights"
    )


def _size_of(fingerprint: str) -> int:
    """Return how many bytes of UTF-8 the text with this fingerprint has; 0 for another string."""
    known = re.fullmatch(r"[0-9a-f]{64}-([0-9]{1,15})", fingerprint)
    return int(known[1]) if known else 0


def _may_hold(sources: list[Source], size: int) -> bool:
    """Return whether files of these sizes can be a text of ``size`` bytes in UTF-8: no encoding
    makes it more than four times shorter, or with its line ends more than eight times longer."""
    if any(source.copy for source in sources):
        return True
    try:
        n_bytes = sum(os.stat(source.name).st_size for source in sources)
    except OSError:  # removed since it was found
        return False
    return size <= 4 * n_bytes and n_bytes <= 8 * size + 4 * len(sources)


def _notes(left_out: dict[str, LeftOut], changed: list[str]) -> list[str]:
    """Return sentences on what was left out of each folder and whose line ends were changed."""
    notes = []
    for folder, kinds in left_out.items():
        counts = [f"{len(names)} {k} ({min(names)})" for k, names in sorted(kinds.items()) if names]
        if counts:
            notes.append(f"left out of {folder}: {', '.join(counts)}")
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        notes.append(f"{changed[0]}{more}: line ends were \\r alone; read as \\n")
    return notes


def read_text(sources: list[Source], encoding: str) -> Iterator[str]:
    """Yield the text of the sources in blocks, each source on a new line. Raises UserError as
    ``read_blocks`` does."""
    last = "\n"
    for source in sources:
        begin = "" if last.endswith("\n") else "\n"
        for last in read_blocks(source, encoding, set()):
            yield begin + last
            begin = ""


def read_blocks(source: Source, encoding: str, changed: set[str]) -> Iterator[str]:
    r"""Yield the text of a source in blocks, without a byte-order mark and with ``\n`` line ends.

    In a file whose lines end in a lone ``\r`` (old Mac) that becomes ``\n`` too, and the file's
    name is added to ``changed``; in other files a lone ``\r`` is kept. Raises UserError, with
    the byte's offset, for a file that is binary or not in this encoding.
    """
    blocks = source.blocks()
    head = next(blocks, b"")
    encoding = recognise(head, encoding)
    decoder = io.IncrementalNewlineDecoder(  # never separates \r from \n
        codecs.getincrementaldecoder(encoding)(), translate=False
    )
    n_read = 0
    only_cr: bool | None = None  # the first block with a line end decides for the whole file
    for raw in chain([head], blocks, [b""]):
        n_read += len(raw)
        text = _decode(decoder, raw, encoding, source.name, n_read).replace("\r\n", "\n")
        if only_cr is None and ("\r" in text or "\n" in text):
            only_cr = text.count("\r") > 9 * text.count("\n")
            if only_cr:
                changed.add(source.name)
        if text:
            yield text.replace("\r", "\n") if only_cr else text


def _decode(
    decoder: io.IncrementalNewlineDecoder, raw: bytes, encoding: str, name: str, n_read: int
) -> str:
    """Return the text of the next block, which ends at byte ``n_read``. Raises UserError."""
    if not encoding.startswith(("utf-16", "utf-32")) and (zero := raw.find(b"\0")) >= 0:
        raise UserError(
            f"{name}: binary, not text (a zero byte at byte {n_read - len(raw) + zero}); give "
            f"{A_TEXT}; UTF-16 without a byte-order mark needs --encoding utf-16-le"
        )
    try:
        return decoder.decode(raw, final=not raw)
    except UnicodeError as error:
        bad, piece = getattr(error, "start", 0), getattr(error, "object", raw)
        wanted = "UTF-8" if encoding == "utf-8-sig" else encoding
        others = " or ".join(f"--encoding {other}" for other in suggest(piece, bad))
        raise UserError(
            f"{name}: not {wanted}: byte 0x{piece[bad : bad + 1].hex()} at byte "
            f"{n_read - len(piece) + bad}; save the file as UTF-8, or try {others}"
        ) from None
