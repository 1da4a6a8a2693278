"""Read a text and encode it as ids, which are mapped from a file."""

import json
import os
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from charrnn.errors import UserError
from charrnn.system.files import atomic_file, reason, remove_leftovers, scratch_file
from charrnn.text.download import find_anna
from charrnn.text.encodings import check_encoding
from charrnn.text.sources import (
    BLOCK,
    STDIN,
    Found,
    Identity,
    find_sources,
    identify,
    read_text,
)
from charrnn.text.split import choose_parts
from charrnn.text.vocabulary import UNKNOWN, Vocabulary, code_points

CACHE_ABOVE = 1 << 26  # bytes of text; the ids of a longer one are kept in a file beside it
MOST_TOKENS = 20_000  # distinct characters to train on: every script of one language fits
LARGEST_VOCABULARY = 1 << 16  # of a text, to be counted
LONGEST_HEADER = 1 << 20  # bytes, of the file with the ids


@dataclass(frozen=True)
class Corpus:
    """A text as ids ``[n_chars]`` of the smallest integer type, mapped from a file."""

    ids: Tensor
    vocabulary: Vocabulary
    fingerprint: str  # differs from that of any other text
    paths: list[Path]  # its files, which nothing may be written to
    notes: list[str]  # sentences on files left out, changed line ends, and the like
    name: str = ""  # what --data named
    files: tuple[str, ...] = ()  # of the files found in folders: the names within these
    file_names: tuple[str, ...] = ()  # of all its files, for messages
    file_ends: tuple[int, ...] = ()  # where each of these ends: characters from the start

    def blocks(self, ids: Tensor | None = None, at_a_time: int = BLOCK) -> Iterator[np.ndarray]:
        """Yield the code points of the text, or of a part of it with these ``ids``, in blocks."""
        points = code_points("".join(self.vocabulary.tokens))
        for block in (self.ids if ids is None else ids).split(at_a_time):
            yield points[block.numpy()]

    def encode_with(self, tokens: tuple[str, ...]) -> Tensor:
        """Return the text's ids for a model with these tokens, mapped from a file.

        Raises UserError with the characters that the model does not know.
        """
        if tokens == self.vocabulary.tokens:
            return self.ids
        new_ids = Vocabulary(tokens).encode("".join(self.vocabulary.tokens)).numpy()
        return self.recode((ids.numpy() for ids in self.ids.split(BLOCK)), new_ids)

    def held_out_files(self, val_frac: float, val_split: str, seed: int) -> list[str]:
        """Return the names of the files that ``split_text`` holds out, in whole or in part; none
        where there is only one file, or where lines or paragraphs of any file are held out."""
        if len(self.file_ends) < 2 or val_split not in ("end", "files"):
            return []
        n_val = round(len(self.ids) * val_frac)
        if val_split == "files":
            lengths = torch.tensor((0, *self.file_ends)).diff()
            chosen = choose_parts(lengths, n_val, val_split, seed)
            return list(compress(self.file_names, chosen.tolist()))
        n_train = len(self.ids) - n_val
        first = bisect_right(self.file_ends, n_train)  # the first file that is held out
        names = list(self.file_names[first:])
        if n_train > (0, *self.file_ends)[first]:
            names[0] = f"the end of {names[0]}"
        return names

    def recode(self, blocks: Iterable[np.ndarray], new_ids: np.ndarray) -> Tensor:
        """Replace each number ``i`` in ``blocks`` by ``new_ids[i]``, or leave it out where that is
        -1; return the result ``[T]``, mapped from a temporary file.

        The numbers may be ids of this text, or code points. Only one block is in memory at a time.
        """
        n_tokens = int(new_ids.max()) + 1  # decides the type, so that no id can overflow it
        with scratch_file(_scratch_folder(self.paths, len(self.ids))) as file:
            for block in blocks:
                ids = new_ids[block]
                file.write(ids[ids >= 0].astype(_dtype(n_tokens)).tobytes())
            return _map(file, n_tokens, 0)


def load_corpus(
    data: list[str] | None,
    min_count: int = 1,
    encoding: str = "utf-8",
    fingerprint: str | None = None,
    known: tuple[str, ...] = (),
    own: Iterable[tuple[str, str]] = (),
    most_tokens: int = MOST_TOKENS,
) -> Corpus:
    """Read and encode the text that ``--data`` names; None is Anna Karenina, ``python-docs`` the
    documentation inside Python.

    Several files are read one after the other, a folder in the order of its files' names, each
    file beginning on a new line; ``-`` is stdin. Characters seen less than ``min_count`` times
    become U+FFFD. If ``fingerprint`` is given, the text must have it (a resumed run needs its own
    text), and of a folder only the files named in ``known`` are read. ``own`` has pairs of an
    encoding and a fingerprint: a text that has this fingerprint when read in this encoding is read
    in it, whatever ``encoding`` says.

    Raises UserError, before anything is written, for a file that is no text in this encoding, for
    another text than that of ``fingerprint``, for more than ``most_tokens`` distinct characters,
    and as ``download`` does.
    """
    encoding = check_encoding(encoding)
    found = find_sources(data or [find_anna()], fingerprint, known)
    text = _own_text(found, own) or identify(found, encoding, fingerprint)
    paths = [Path(STDIN[1] if source.name == "-" else source.name) for source in text.sources]
    paths = [] if data == ["python-docs"] else paths
    folder = _scratch_folder(paths, text.size)
    key = text.fingerprint if min_count == 1 else f"{min_count}-{text.fingerprint}"

    def encode(file: BinaryIO) -> None:
        _encode(text, min_count, most_tokens, key, file, folder)

    if text.size > CACHE_ABOVE and not any(source.copy for source in text.sources):
        ids, tokens = _from_cache(paths[0].resolve(), key, encode, text.notes)
    else:
        with scratch_file(folder) as file:
            encode(file)
            ids, tokens = _open_encoded(file)
    _refuse_many(len(tokens), most_tokens)  # a cache made for evaluation may have more
    files = tuple(os.path.relpath(s.name, s.folder) for s in text.sources if s.folder)
    names = tuple(os.path.relpath(s.name, Path(s.folder or s.name).parent) for s in text.sources)
    ends = tuple(min(end, len(ids)) for end in text.ends)  # the last may have no line end
    vocabulary, notes = Vocabulary(tokens), text.notes
    return Corpus(ids, vocabulary, text.fingerprint, paths, notes, found.name, files, names, ends)


def _own_text(found: Found, own: Iterable[tuple[str, str]]) -> Identity | None:
    """Return the text as read in the first of these encodings in which it has the fingerprint
    beside it; None where there is none."""
    for encoding, fingerprint in own:
        with suppress(UserError):  # cannot be read in this encoding, or is another text
            return identify(found, check_encoding(encoding), fingerprint)
    return None


def _scratch_folder(paths: list[Path], size: int) -> Path | None:
    """Return the folder for temporary files: that of a long text, since /tmp may be in memory."""
    if size > CACHE_ABOVE and paths and paths[0].is_file():
        folder = paths[0].resolve().parent
        return folder if os.access(folder, os.W_OK) else None
    return None


def _from_cache(
    text: Path, key: str, encode: Callable[[BinaryIO], None], notes: list[str]
) -> tuple[Tensor, tuple[str, ...]]:
    """Return the ids and tokens in the cache beside the file ``text``, which ``encode`` writes
    unless an earlier run did. ``key`` tells the caches of a file apart.

    Raises UserError where it cannot be written.
    """
    cache = text.with_name(f"{text.name}.{key[:16]}.ids")
    # [the count of --min-count and] the beginning of the fingerprint of the text
    all_caches = re.escape(text.name) + r"\.((?:[0-9]+-)?([0-9a-f]+))\.ids"
    try:
        if cache.is_file():  # a FIFO would block
            with cache.open("rb") as file:
                if _is_whole(file, key):
                    return _open_encoded(file)
            notes.append(f"{cache}: damaged, or of another text; it is made again")
        if cache.is_symlink():  # others can guess its name: nothing is written through a link
            cache.unlink()
        remove_leftovers(cache.parent, all_caches)
        with atomic_file(cache) as file:
            encode(file)
        *_, fingerprint, _ = key.split("-")  # [--min-count,] hash, size
        if others := _remove_caches(cache.parent, all_caches, fingerprint):
            notes.append(f"removed caches of {text.name} as it was before: {', '.join(others)}")
        with cache.open("rb") as file:
            return _open_encoded(file)
    except OSError as error:
        raise UserError(
            f"{cache}: {reason(error)}; a text of this size is encoded to a file beside it, so its "
            "folder must be writable"
        ) from None


def _remove_caches(folder: Path, all_caches: str, fingerprint: str) -> list[str]:
    """Remove the caches whose names match the pattern ``all_caches`` and which are of a text with
    another hash than ``fingerprint``; return these names."""
    removed = []
    for path in sorted(folder.iterdir()):
        found = re.fullmatch(all_caches, path.name)
        if found and path.is_file() and not fingerprint.startswith(found[2]):
            head = f'{{"fingerprint": "{found[1]}'.encode()  # as _encode writes it
            with suppress(OSError), path.open("rb") as file:
                if file.read(len(head)) == head:
                    path.unlink()
                    removed.append(path.name)
    return removed


def _encode(
    text: Identity, min_count: int, most_tokens: int, key: str, file: BinaryIO, folder: Path | None
) -> None:
    """Write a line of JSON with ``key`` as the fingerprint, the tokens, the number of ids and their
    checksum; then the ids.

    The text is read once: places in order of appearance go to a scratch file in ``folder`` first.
    """
    place_of = np.full(0x110000, -1, dtype=np.int32)  # of each code point, in order of appearance
    points = np.empty(0, dtype=np.uint32)  # the code point of each place
    counts = np.zeros(LARGEST_VOCABULARY, dtype=np.int64)  # of each place
    with scratch_file(folder) as places_file:
        for chars in read_text(text.sources, text.encoding):
            block = code_points(chars)
            new = np.unique(block[place_of[block] < 0])
            points = np.append(points, new)
            _refuse_many(len(points), LARGEST_VOCABULARY)
            place_of[new] = np.arange(len(points) - len(new), len(points))
            places = place_of[block].astype(np.uint16)
            counts += np.bincount(places, minlength=len(counts))
            places_file.write(places.tobytes())
        kept = np.where(counts[: len(points)] < min_count, ord(UNKNOWN), points)
        tokens, ids = np.unique(kept, return_inverse=True)
        _refuse_many(len(tokens), most_tokens)
        ids = ids.astype(_dtype(len(tokens)))
        n_ids = int(counts.sum())
        header = {"fingerprint": key, "tokens": list(map(chr, tokens)), "n_ids": n_ids}
        checksum = 0
        file.write(_header_line(header, checksum))
        places_file.seek(0)
        while raw := places_file.read(2 * BLOCK):
            encoded = ids[np.frombuffer(raw, np.uint16)].tobytes()
            checksum = zlib.crc32(encoded, checksum)
            file.write(encoded)
        file.seek(0)
        file.write(_header_line(header, checksum))


def _header_line(header: dict[str, Any], checksum: int) -> bytes:
    """Return the line of JSON: as long for any checksum, and padded so that the ids are aligned."""
    line = json.dumps(header | {"crc32": f"{checksum:08x}"}).encode()
    return line + b" " * (-(len(line) + 1) % 64) + b"\n"


def _refuse_many(n_tokens: int, most: int) -> None:
    """Raises UserError for more than ``most`` distinct characters."""
    if n_tokens > most:
        raise UserError(
            f"more than {most:,} distinct characters: is it text in one language? leave out "
            "the rest, or raise --min-count"
        )


def _is_whole(file: BinaryIO, key: str) -> bool:
    """Return whether ``_encode`` wrote this file with this ``key``, and no byte has changed."""
    try:
        header = json.loads(file.readline(LONGEST_HEADER))
        tokens = header["tokens"]
        dtype = np.dtype(_dtype(len(tokens)))
        length = os.fstat(file.fileno()).st_size - file.tell()
        if header["fingerprint"] != key or tokens != sorted(set("".join(tokens))):
            return False
        if not 0 < length == header["n_ids"] * dtype.itemsize:
            return False
        checksum = 0
        while raw := file.read(2 * BLOCK):
            ids = np.frombuffer(raw, dtype)
            if ids.min() < 0 or ids.max() >= len(tokens):
                return False
            checksum = zlib.crc32(raw, checksum)
        return f"{checksum:08x}" == header["crc32"]
    except (ValueError, TypeError, KeyError, RecursionError):  # no JSON, or another structure
        return False


def _open_encoded(file: BinaryIO) -> tuple[Tensor, tuple[str, ...]]:
    """Return the ids and the tokens that ``_encode`` wrote."""
    file.seek(0)
    tokens = tuple(json.loads(file.readline())["tokens"])
    return _map(file, len(tokens), file.tell()), tokens


def _map(file: BinaryIO, n_tokens: int, start: int) -> Tensor:
    """Return the ids in a file from byte ``start`` on, read as needed, even once it is closed."""
    file.flush()
    if os.fstat(file.fileno()).st_size == start:  # an empty file cannot be mapped
        return torch.empty(0, dtype=torch.uint8)
    # copy-on-write, since torch wants writable memory; nothing writes to it
    return torch.from_numpy(np.memmap(file, _dtype(n_tokens), mode="c", offset=start))


def _dtype(n_tokens: int) -> type:
    """Return the smallest type for ids; a model may know more than ``MOST_TOKENS`` characters."""
    return np.uint8 if n_tokens <= 1 << 8 else np.int16 if n_tokens <= 1 << 15 else np.int32
