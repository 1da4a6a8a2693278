"""Where the text comes from: files, Anna Karenina, or the documentation inside Python itself."""

import hashlib
import http.client
import json
import os
import pydoc_data.topics
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from charrnn.checkpoint import atomic_file
from charrnn.data import UNKNOWN, Vocabulary, code_points, read_blocks, read_raw
from charrnn.errors import UserError

ANNA = Path("data/anna.txt")
ANNA_URL = (
    "https://raw.githubusercontent.com/udacity/deep-learning-v2-pytorch/master/"
    "recurrent-neural-networks/char-rnn/data/anna.txt"
)
ANNA_BYTES = 2_025_486
ANNA_SHA256 = "568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9"

IN_MEMORY = 1 << 26  # bytes of text; a longer one is encoded once, to a file that is mapped
MOST_TOKENS = 20_000  # distinct characters: every script of one language fits
BLOCK = 1 << 21  # ids


@dataclass(frozen=True)
class Corpus:
    """A text as ids ``[n_chars]`` of the smallest integer type, perhaps mapped from a file."""

    ids: Tensor
    vocabulary: Vocabulary
    sha256: str  # of the files and of min_count

    def encode_for(self, tokens: tuple[str, ...], start: int = 0) -> Tensor:
        """Ids from ``start`` on for a model with these tokens. Raises UserError: unknown ones."""
        ids = self.ids[start:]
        if tokens == self.vocabulary.tokens:
            return ids
        present = torch.unique(ids).long()
        table = torch.zeros(len(self.vocabulary), dtype=torch.int64)
        table[present] = Vocabulary(tokens).encode(self.vocabulary.decode(present))
        return table[ids.long()]


def load_corpus(data: list[str] | None, min_count: int = 1) -> Corpus:
    """The text that ``--data`` names: None is Anna Karenina, ``python-docs`` needs no file at all.

    Several files are read one after the other, a folder in the order of its files' names, each
    file beginning on a new line. Characters seen less than ``min_count`` times become U+FFFD.
    Raises UserError as ``read_blocks`` and ``download`` do, and for too many distinct characters.
    """
    if data == ["python-docs"]:
        topics = pydoc_data.topics.topics
        text = "\n".join(topics[name] for name in sorted(topics))
        return _in_memory([text], min_count, hashlib.sha256(text.encode()).hexdigest())
    if data is None and not ANNA.exists():
        download(ANNA_URL, ANNA, ANNA_BYTES, ANNA_SHA256)
    paths = _files([str(ANNA)] if data is None else data)
    digest = hashlib.sha256(str(min_count).encode())
    for path in paths:
        digest.update(_sha256(path))
    if sum(path.stat().st_size for path in paths) <= IN_MEMORY:
        return _in_memory(_text_of(paths), min_count, digest.hexdigest())
    first = paths[0].resolve()
    cache = first.with_name(f"{first.name}.{digest.hexdigest()[:16]}.ids")
    try:
        if not cache.exists():
            with atomic_file(cache) as file:
                _encode(_text_of(paths), min_count, file, cache.parent)
        return _mapped(cache, digest.hexdigest())
    except OSError as error:
        raise UserError(
            f"{cache}: {error.strerror or error}; a text of this size is encoded to a file beside "
            "it: make room there, or copy the text to a folder that can be written"
        ) from None


def _files(data: list[str]) -> list[Path]:
    """The files named, those of a folder in its place. Raises UserError: missing, or none."""
    paths: list[Path] = []
    for name in data:
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".ids")
            paths += [p for p in inside if not p.name.startswith(".")]
        else:
            paths.append(path)
    if not paths:
        raise UserError(f"{data[0]}: an empty folder; give UTF-8 texts with --data")
    return paths


def _sha256(path: Path) -> bytes:
    """Raises UserError for a file that cannot be read."""
    digest = hashlib.sha256()
    for raw in read_raw(path):
        digest.update(raw)
    return digest.digest()


def _text_of(paths: list[Path]) -> Iterator[str]:
    """The text of the files, each on a new line. Raises UserError when there is no text at all."""
    last = ""
    for path in paths:
        if last and not last.endswith("\n"):
            yield "\n"
        for block in read_blocks(path):
            yield block
            last = block
    if not last:
        raise UserError(f"{paths[-1]}: empty; give a file with some text in it")


def _in_memory(blocks: Iterable[str], min_count: int, sha256: str) -> Corpus:
    with tempfile.TemporaryFile() as file:
        _encode(blocks, min_count, file, None)
        file.seek(0)
        tokens = json.loads(file.readline())
        ids = np.frombuffer(bytearray(file.read()), _dtype(len(tokens)))
    return Corpus(torch.from_numpy(ids), Vocabulary(tuple(tokens)), sha256)


def _mapped(path: Path, sha256: str) -> Corpus:
    with path.open("rb") as file:
        tokens = json.loads(file.readline())
        start = file.tell()
    # copy-on-write, since torch wants to be able to write; nobody does
    ids = np.memmap(path, _dtype(len(tokens)), mode="c", offset=start)
    return Corpus(torch.from_numpy(ids), Vocabulary(tuple(tokens)), sha256)


def _dtype(n_tokens: int) -> type:
    return np.uint8 if n_tokens <= 256 else np.int16


def _encode(blocks: Iterable[str], min_count: int, file: BinaryIO, folder: Path | None) -> None:
    """Write the vocabulary as a line of JSON, then the ids. The text passes by only once."""
    known = np.full(0x110000, -1, dtype=np.int32)  # code point -> place in order of appearance
    points = np.empty(0, dtype=np.uint32)
    counts = np.zeros(MOST_TOKENS, dtype=np.int64)
    with tempfile.TemporaryFile(dir=folder) as provisional:
        for text in blocks:
            block = code_points(text)
            places = known[block]
            if (places < 0).any():
                new = np.unique(block[places < 0])
                points = np.append(points, new)
                if len(points) > MOST_TOKENS:
                    raise UserError(
                        f"more than {MOST_TOKENS:,} distinct characters: is it text in one "
                        "language? leave out what is not"
                    )
                known[new] = np.arange(len(points) - len(new), len(points))
                places = known[block]
            counts += np.bincount(places, minlength=MOST_TOKENS)
            provisional.write(places.astype(np.uint16).tobytes())

        chars = np.array([chr(point) for point in points])
        chars[counts[: len(points)] < min_count] = UNKNOWN
        tokens, ids = np.unique(chars, return_inverse=True)
        ids = ids.astype(_dtype(len(tokens)))
        file.write(json.dumps(tokens.tolist()).encode() + b"\n")
        provisional.seek(0)
        while raw := provisional.read(2 * BLOCK):
            file.write(ids[np.frombuffer(raw, np.uint16)].tobytes())


def download(url: str, path: Path, size: int, sha256: str) -> None:
    """Fetch ``url`` to ``path``, which appears only when its size and SHA-256 are as expected.

    Raises UserError, one line with the three ways on, when anything goes wrong.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(url, timeout=30) as response,
            tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file,
            tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar,
        ):
            partial = file.name
            digest, received = hashlib.sha256(), 0
            # one byte more than expected is enough to know that it is another file
            while received <= size and (block := response.read(min(1 << 16, size + 1 - received))):
                file.write(block)
                digest.update(block)
                received += len(block)
                bar.update(len(block))
        if received != size:
            raise OSError(f"{received:,} bytes or more came instead of {size:,}")
        if digest.hexdigest() != sha256:
            raise OSError("another file came (its SHA-256 is wrong)")
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{path} could not be downloaded: {error}; put a text there yourself, "
            "name another with --data FILE, or use --data python-docs, which needs no network"
        ) from None
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
