"""The files that a text is in: which they are, their bytes, their characters, their fingerprint."""

import codecs
import hashlib
import io
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from charrnn.encodings import recognise, suggest
from charrnn.errors import UserError
from charrnn.files import RUN_SUFFIXES, require_regular, scratch_file

BLOCK = 1 << 21  # bytes of text read at a time; at least 4, to hold a byte-order mark
STDIN = ("-", "/dev/stdin")
A_TEXT = "a text file, or a folder of them, with --data"


@dataclass(frozen=True)
class Source:
    """A file with text in it, by its name; a stream, which can be read only once, with a copy."""

    name: str
    copy: BinaryIO | None = None

    def blocks(self) -> Iterator[bytes]:
        """Its bytes. Raises UserError where they cannot be read."""
        with nullcontext(self.copy) if self.copy else _open(self.name) as file:
            file.seek(0)
            yield from _read(file, self.name)


def _open(file: str | int, name: str = "") -> BinaryIO:
    try:
        return open(file, "rb", closefd=file != 0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{name or file}: cannot be read: {reason}; give {A_TEXT}") from None


def _read(file: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        while raw := file.read(BLOCK):
            yield raw
            if len(raw) < BLOCK:  # or a terminal would have to say twice that this is the end
                return
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror}; give {A_TEXT}") from None


def open_source(name: str) -> Source:
    """A file, or all that stdin or a FIFO has to give. Raises UserError for what may never end."""
    if name in STDIN:
        return Source(name, _copy(_open(0, name), name))
    if os.path.exists(name) and stat.S_ISFIFO(os.stat(name).st_mode):
        return Source(name, _copy(_open(name), name))
    require_regular(name, A_TEXT)
    return Source(name)


def _copy(stream: BinaryIO, name: str) -> BinaryIO:
    """A temporary file with all that is left of a stream."""
    with stream, scratch_file() as file:
        if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode) and not stream.isatty():
            raise UserError(f"{name}: a device; give {A_TEXT}")
        for raw in _read(stream, name):
            file.write(raw)
        file.flush()
        return open(os.dup(file.fileno()), "rb")


def find_files(data: list[str], notes: list[str]) -> list[str]:
    """The files named, and in a folder's place its texts; ``notes`` gets what is left out there.

    Raises UserError for an address, and for folders with no text in them.
    """
    names: list[str] = []
    for name in data:
        if re.match(r"\w+://", name) and not os.path.exists(name):
            raise UserError(f"{name}: an address; download it first, then give the file's name")
        if not os.path.isdir(name):
            names.append(name)
            continue
        try:
            texts, left_out = _search(name)
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
        names += map(str, sorted(texts))
        kinds = [f"{len(left_out[k])} {k} ({min(left_out[k])})" for k in sorted(left_out)]
        if kinds:
            notes.append(f"left out of {name}: {', '.join(kinds)}")
    if not names:
        raise UserError("; ".join([f"{data[0]}: no text in this folder", *notes, f"give {A_TEXT}"]))
    return names


def _search(folder: str) -> tuple[list[Path], dict[str, list[str]]]:
    """The texts in a folder and all below it; and the names of what is none of them, by kind."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    texts: list[Path] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for where, folders, files in os.walk(folder, onerror=refuse):
        for path in (Path(where, name) for name in folders + files):
            if path.name.startswith("."):
                left_out["hidden"].append(path.name)
            elif path.is_file():
                kind = _own_kind(path)
                texts.append(path) if kind is None else left_out[kind].append(path.name)
        folders[:] = [name for name in folders if not name.startswith(".")]
    return texts, left_out


def _own_kind(path: Path) -> str | None:
    """Which kind of file of ours this is; None for a text, as far as its name and head tell."""
    if path.suffix in (*RUN_SUFFIXES, ".ids"):
        return path.suffix
    with path.open("rb") as file:
        head = file.read(1024)
    if head.startswith(b"PK\3\4"):  # a model need not be called .net
        return "zip"
    is_page = path.suffix == ".html" and b'<meta name="generator" content="charrnn"' in head
    return "of our pages" if is_page else None


def fingerprint_of(sources: list[Source], how: str, earlier: str | None) -> tuple[str, int, bool]:
    r"""What tells the texts apart when read as ``how`` says; how many bytes they have; and whether
    the text of the fingerprint ``earlier`` is the beginning of this one.

    ``\r\n`` counts as the ``\n`` as which it is read.
    """
    known = re.fullmatch(r"[0-9a-f]{64}-([0-9]{1,15})", earlier or "")
    old_size = int(known[1]) if known else -1
    digest, size, has_grown, found = hashlib.sha256(how.encode()), 0, False, ""
    for source in sources:
        begin = size
        for raw in _with_plain_line_ends(source.blocks()):
            if size < old_size <= size + len(raw):
                beginning = digest.copy()
                beginning.update(raw[: old_size - size])
                has_grown = _end_file(beginning, begin, old_size) == earlier
            digest.update(raw)
            size += len(raw)
            if earlier is not None and size > old_size:
                return f"not {earlier}", size, has_grown  # whatever follows
        found = _end_file(digest, begin, size)
    return found, size, has_grown


def _end_file(digest: Any, begin: int, size: int) -> str:
    """The fingerprint up to here. The end of a file counts: the next begins on a new line."""
    digest.update(f"\0{size - begin}\0".encode())
    return f"{digest.hexdigest()}-{size}"


def _with_plain_line_ends(blocks: Iterable[bytes]) -> Iterator[bytes]:
    r"""``\r\n`` as ``\n``, also where a block ends between the two."""
    held = b""
    for raw in blocks:
        raw = held + raw
        held = b"\r" if raw.endswith(b"\r") else b""
        yield raw.removesuffix(b"\r").replace(b"\r\n", b"\n")
    yield held


def read_text(sources: list[Source], encoding: str, notes: list[str]) -> Iterator[str]:
    """The text of the sources in blocks, each source on a new line; at its end ``notes`` gets what
    was done to it. Raises UserError when there is no text at all, and as ``read_blocks`` does."""
    last = ""
    changed: list[str] = []
    for source in sources:
        if last and not last.endswith("\n"):
            yield "\n"
        for block in read_blocks(source, encoding, changed):
            yield block
            last = block
    if not last:
        raise UserError(f"{sources[-1].name}: empty; give a file with some text in it")
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        notes.append(f"{changed[0]}{more}: line ends were \\r alone; read as \\n")


def read_blocks(source: Source, encoding: str, changed: list[str]) -> Iterator[str]:
    r"""The text of a source in blocks, without a byte-order mark and with ``\n`` line ends.

    Where lines end with ``\r`` alone, that is so read too, and ``changed`` gets the name; where
    most end otherwise, such a ``\r`` stays. Raises UserError for what is binary or cannot be
    decoded, with the byte's offset.
    """
    blocks = source.blocks()
    head = next(blocks, b"")
    encoding = recognise(head, encoding)
    decoder = io.IncrementalNewlineDecoder(  # never parts \r and \n
        codecs.getincrementaldecoder(encoding)(), translate=False
    )
    n_read, only_cr = 0, None
    for raw in chain([head], blocks, [b""]):
        n_read += len(raw)
        text = _decode(decoder, raw, encoding, source.name, n_read).replace("\r\n", "\n")
        if only_cr is None and ("\r" in text or "\n" in text):
            only_cr = text.count("\r") > 9 * text.count("\n")  # as its first block is, so is it all
            if only_cr:
                changed.append(source.name)
        if text:
            yield text.replace("\r", "\n") if only_cr else text


def _decode(
    decoder: io.IncrementalNewlineDecoder, raw: bytes, encoding: str, name: str, n_read: int
) -> str:
    """The text of the next block, which ends at byte ``n_read``. Raises UserError."""
    has_zeros = encoding.startswith(("utf-16", "utf-32"))
    if not has_zeros and (zero := raw.find(b"\0")) >= 0:
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
            f"{n_read - len(piece) + bad}; "
            f"save the file as UTF-8, or try {others}"
        ) from None
