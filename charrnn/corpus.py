"""Where the text comes from: files, Anna Karenina, or the documentation inside Python itself."""

import hashlib
import http.client
import json
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
from charrnn.data import BLOCK, UNKNOWN, Vocabulary, code_points, read_blocks, read_raw
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
        table = np.zeros(len(self.vocabulary), _dtype(len(tokens)))
        table[present] = Vocabulary(tokens).encode(self.vocabulary.decode(present))
        return torch.from_numpy(table[ids.numpy()])


def load_corpus(data: list[str] | None, min_count: int = 1) -> Corpus:
    """The text that ``--data`` names: None is Anna Karenina, ``python-docs`` needs no file at all.

    Several files are read one after the other, a folder in the order of its files' names, each
    file beginning on a new line. Characters seen less than ``min_count`` times become U+FFFD.
    Raises UserError as ``read_blocks`` and ``download`` do, and for too many distinct characters.
    """
    paths: list[Path] = []
    if data == ["python-docs"]:
        topics = pydoc_data.topics.topics
        docs = "\n".join(topics[name] for name in sorted(topics))
        blocks, sha256 = iter([docs]), hashlib.sha256(docs.encode()).hexdigest()
    else:
        if data is None and not ANNA.exists():
            download(ANNA_URL, ANNA, ANNA_BYTES, ANNA_SHA256)
        paths = _files([str(ANNA)] if data is None else data)
        blocks, sha256 = _text_of(paths), _sha256(paths, min_count)
    if sum(path.stat().st_size for path in paths) <= IN_MEMORY:
        with tempfile.TemporaryFile() as file:
            _encode(blocks, min_count, file, None)
            file.seek(0)
            return _mapped(file, sha256)
    first = paths[0].resolve()
    cache = first.with_name(f"{first.name}.{sha256[:16]}.ids")
    try:
        if not cache.exists():
            with atomic_file(cache) as file:
                _encode(blocks, min_count, file, cache.parent)
        with cache.open("rb") as file:
            return _mapped(file, sha256)
    except OSError as error:
        raise UserError(
            f"{cache}: {error.strerror or error}; a text of this size is encoded to a file beside "
            "it: make room there, or copy the text to a folder that can be written"
        ) from None


def _files(data: list[str]) -> list[Path]:
    """The files named, those of a folder in its place. Raises UserError: missing, or none."""
    paths: list[Path] = []
    for path in map(Path, data):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".ids")
            paths += [p for p in inside if "/." not in f"/{p.relative_to(path).as_posix()}"]
        else:
            paths.append(path)
    if not paths:
        raise UserError(f"{data[0]}: an empty folder; give UTF-8 texts with --data")
    return paths


def _sha256(paths: list[Path], min_count: int) -> str:
    """Raises UserError for a file that cannot be read."""
    digest = hashlib.sha256(str(min_count).encode())
    for path in paths:
        of_file = hashlib.sha256()
        for raw in read_raw(path):
            of_file.update(raw)
        digest.update(of_file.digest())
    return digest.hexdigest()


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


def _encode(blocks: Iterable[str], min_count: int, file: BinaryIO, folder: Path | None) -> None:
    """Write the vocabulary as a line of JSON, then the ids. The text passes by only once."""
    place_of = np.full(0x110000, -1, dtype=np.int32)  # of each code point, in order of appearance
    points = np.empty(0, dtype=np.uint32)
    counts = np.zeros(1 << 16, dtype=np.int64)  # of each place
    with tempfile.TemporaryFile(dir=folder) as places_file:
        for text in blocks:
            block = code_points(text)
            new = np.unique(block[place_of[block] < 0])
            points = np.append(points, new)
            _refuse_many(len(points), len(counts))
            place_of[new] = np.arange(len(points) - len(new), len(points))
            places = place_of[block].astype(np.uint16)
            counts += np.bincount(places, minlength=len(counts))
            places_file.write(places.tobytes())
        kept = np.where(counts[: len(points)] < min_count, ord(UNKNOWN), points)
        tokens, ids = np.unique(kept, return_inverse=True)
        _refuse_many(len(tokens), MOST_TOKENS)
        ids = ids.astype(_dtype(len(tokens)))
        file.write(json.dumps([chr(token) for token in tokens]).encode() + b"\n")
        places_file.seek(0)
        while raw := places_file.read(BLOCK):
            file.write(ids[np.frombuffer(raw, np.uint16)].tobytes())


def _refuse_many(n_tokens: int, most: int) -> None:
    """Raises UserError for more than ``most`` distinct characters."""
    if n_tokens > most:
        raise UserError(
            f"more than {most:,} distinct characters: is it text in one language? leave out "
            "what is not, or raise --min-count"
        )


def _mapped(file: BinaryIO, sha256: str) -> Corpus:
    """What ``_encode`` wrote; read as it is needed, even after the file is closed."""
    tokens = json.loads(file.readline())
    # copy-on-write, since torch wants to be able to write; nobody does
    ids = np.memmap(file, _dtype(len(tokens)), mode="c", offset=file.tell())
    return Corpus(torch.from_numpy(ids), Vocabulary(tuple(tokens)), sha256)


def _dtype(n_tokens: int) -> type:
    return np.uint8 if n_tokens <= 256 else np.int16


def download(url: str, path: Path, size: int, sha256: str) -> None:
    """Fetch ``url`` to ``path``, which appears only when its size and SHA-256 are as expected.

    Raises UserError, one line with the three ways on, when anything goes wrong.
    """
    body = bytearray()
    try:
        with (
            urllib.request.urlopen(url, timeout=30) as response,
            tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar,
        ):
            # more than expected is enough to know that it is another file
            while len(body) <= size and (block := response.read(1 << 16)):
                body += block
                bar.update(len(block))
        if len(body) != size:
            raise OSError(f"{len(body):,} bytes or more came instead of {size:,}")
        if hashlib.sha256(body).hexdigest() != sha256:
            raise OSError("another file came (its SHA-256 is wrong)")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(body)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{path} could not be downloaded: {error}; put a text there yourself, "
            "name another with --data FILE, or use --data python-docs, which needs no network"
        ) from None
