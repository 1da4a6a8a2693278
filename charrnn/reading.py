"""Checkpoints and a text for the programs that look at models reading: which part of the text, as
which ids, and what had to be left out."""

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from charrnn.checkpoint import build_model, load_dict
from charrnn.cli import Parser
from charrnn.corpus import ANNA, Corpus, load_corpus
from charrnn.data import UNKNOWN, split_text
from charrnn.device import pick_device
from charrnn.errors import UserError
from charrnn.model import CharRNN

BLOCK = 1 << 22  # characters mapped at a time: numpy indexes with eight bytes each


@dataclass(frozen=True)
class Model:
    """A checkpoint that was read: the network, and the plain values beside it."""

    path: str
    net: CharRNN
    checkpoint: dict[str, Any]

    def describe(self) -> str:
        """Its file, cell and size, in words."""
        net = self.net
        return f"{self.path}: {net.cell} {net.n_hidden} \u00d7 {net.n_layers}"

    def trained_on(self, corpus: Corpus) -> bool | None:
        """Whether this is the text of its training; None if the checkpoint does not say."""
        if isinstance(known := self.checkpoint.get("fingerprint"), str):
            return known == corpus.fingerprint
        text = self.checkpoint.get("text")
        if not isinstance(text, dict) or "chars" not in text:
            return None
        names = {path.name for path in corpus.paths} or {"python-docs"}
        return text["chars"] == len(corpus.ids) and text.get("name") in names

    def val_frac(self) -> float:
        """The share of its text that training held out; 0.1 if the checkpoint does not say."""
        val_frac = self.checkpoint.get("val_frac", 0.1)
        return val_frac if isinstance(val_frac, float) and 0 < val_frac < 1 else 0.1


@dataclass(frozen=True)
class Text:
    """A text as each of the models reads it."""

    name: str
    ids: list[Tensor]  # [T] of each model, without what one of them does not know
    split: str  # "val": what training held out; "all"
    left_out: int  # characters that a model never saw
    notes: list[str]  # sentences for the reader


def add_reading_flags(p: Parser) -> None:
    """The flags of a program that has models read a text."""
    p.add_argument(
        "--data",
        metavar="PATH",
        nargs="+",
        help="texts, a folder, or python-docs (default: data/anna.txt, downloaded once)",
    )
    p.add_argument("--encoding", metavar="NAME", default="utf-8", help="of the texts")
    p.add_argument(
        "--split",
        choices=("val", "all"),
        help="val: only the end that training held out (default where the model's own text is "
        "recognised); all: all of it (default, and the only way, for another text)",
    )
    add_device_flag(p)


def add_device_flag(p: Parser) -> None:
    """Where the model runs."""
    p.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:N or mps")


def load_model(path: str, device: str) -> Model:
    """The model in a checkpoint, in evaluation mode. Raises UserError for what holds none."""
    checkpoint = load_dict(path)
    return Model(path, build_model(checkpoint, path).to(pick_device(device)).eval(), checkpoint)


def min_count_of(models: list[Model]) -> int:
    """The ``--min-count`` of the first model's run, so that its text is read as it was then."""
    settings = models[0].checkpoint.get("settings")
    count = settings.get("min_count", 1) if isinstance(settings, dict) else 1
    return count if type(count) is int and 1 <= count < 2**31 else 1


def read_corpus(args: Namespace, models: list[Model]) -> Corpus:
    """The text that the flags of ``add_reading_flags`` name. Raises UserError as load_corpus."""
    return load_corpus(args.data, min_count_of(models), args.encoding)


def read_text(args: Namespace, models: list[Model], corpus: Corpus) -> Text:
    """The part of the corpus that is to be read, as ids of each model.

    Characters that one of the models never saw are left out and counted, unless it has U+FFFD for
    them. Raises UserError when fewer than the 2 characters are left that a prediction needs.
    """
    name = " ".join(args.data or [str(ANNA)])
    own = [model.trained_on(corpus) for model in models]
    notes = list(corpus.notes)
    split = args.split or ("val" if True in own else "all")
    if split == "val" and all(known is False for known in own):
        split = "all"
        notes.append("not the text the model was trained on: all of it is read")
    ids, start = corpus.ids, 0
    if split == "val":
        trained = [m for m, known in zip(models, own, strict=True) if known is not False]
        start = len(ids) - len(split_text(ids, min(model.val_frac() for model in trained))[1])
    encoded, counts = encode(ids[start:], corpus.vocabulary.tokens, models)
    if left_out := sum(counts.values()):
        shown = " ".join(ascii(char) for char in list(counts)[:10])
        more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
        notes.append(
            f"{left_out:,} characters of {len(counts):,} kinds left out, which the model never "
            f"saw: {shown}{more}"
        )
    if len(encoded[0]) < 2:
        raise UserError(
            f"{name}: {len(encoded[0])} characters that the model knows; at least 2 are needed"
        )
    return Text(name, encoded, split, left_out, notes)


def encode(
    ids: Tensor, tokens: tuple[str, ...], models: list[Model]
) -> tuple[list[Tensor], dict[str, int]]:
    """``ids`` ``[T]`` of ``tokens`` as ids of each model, and how often each character was left out
    because a model lacks it; those are left out for all, so that they read the same."""
    keep = np.ones(len(tokens), bool)
    tables = []
    for model in models:
        place = model.net.char2int
        found = [place.get(token, place.get(UNKNOWN, -1)) for token in tokens]
        keep &= np.array(found) >= 0
        tables.append(np.array(found, np.uint8 if len(place) <= 256 else np.int16))
    counts = np.zeros(len(tokens), np.int64)
    blocks: list[list[np.ndarray]] = [[] for _ in models]
    for part in ids.split(BLOCK):
        block = part.numpy()
        counts += np.bincount(block, minlength=len(tokens))
        if not keep.all():
            block = block[keep[block]]
        for parts, table in zip(blocks, tables, strict=True):
            parts.append(table[block])
    left_out = {tokens[i]: int(counts[i]) for i in np.flatnonzero(~keep & (counts > 0))}
    return [torch.from_numpy(np.concatenate(parts)) for parts in blocks], left_out
