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
        known = self.checkpoint.get("fingerprint")
        return known == corpus.fingerprint if isinstance(known, str) else None

    def setting(self, name: str, kind: type, default: Any) -> Any:
        """A setting of its run, where the checkpoint has one of this type; it may hold anything."""
        settings = self.checkpoint.get("settings")
        value = settings.get(name) if isinstance(settings, dict) else None
        return value if type(value) is kind else default

    def val_frac(self) -> float:
        """The share of its text that training held out; 0.1 if the checkpoint does not say."""
        val_frac = self.checkpoint.get("val_frac", 0.1)
        return val_frac if isinstance(val_frac, float) and 0 < val_frac < 1 else 0.1

    def held_out(self, corpus: Corpus) -> Tensor:
        """The ids of what training held out of this text. Raises UserError as split_text does."""
        how = self.setting("val_split", str, "end"), self.setting("seed", int, 0) % 2**63
        return split_text(corpus.ids, self.val_frac(), corpus.vocabulary.tokens, *how)[1]


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
    encoding = "of the texts (default: as in the model's training, else utf-8)"
    p.add_argument("--encoding", metavar="NAME", help=encoding)
    p.add_argument(
        "--split",
        choices=("val", "all"),
        help="val: only the end that training held out (default where the model's own text is "
        "recognised); all: all of it (default, and the only way, for another text)",
    )

    p.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:N or mps")


def load_model(path: str, device: str) -> Model:
    """The model in a checkpoint, in evaluation mode. Raises UserError for what holds none."""
    checkpoint = load_dict(path)
    return Model(path, build_model(checkpoint, path).to(pick_device(device)).eval(), checkpoint)


def read_corpus(args: Namespace, models: list[Model]) -> Corpus:
    """The text that the flags name, read as the first model's was, so that it is recognised.

    Raises UserError as load_corpus does.
    """
    encoding = args.encoding or models[0].setting("encoding", str, "utf-8")
    min_count = max(1, models[0].setting("min_count", int, 1))
    return load_corpus(args.data, min_count, encoding)


def read_text(args: Namespace, models: list[Model], corpus: Corpus) -> Text:
    """The part of the corpus that is to be read, as ids of each model.

    Characters that one of the models never saw are left out and counted, unless it has U+FFFD for
    them. Raises UserError when fewer than the 2 characters are left that a prediction needs.
    """
    name = " ".join(args.data or [str(ANNA)])
    own = [model.trained_on(corpus) for model in models]
    notes = list(corpus.notes)
    split = args.split or ("val" if True in own else "all")
    if split == "val" and all(answer is False for answer in own):
        split = "all"
        notes.append("not the text the model was trained on: all of it is read")
    ids = corpus.ids
    if split == "val":
        ids = models[own.index(True) if True in own else own.index(None)].held_out(corpus)
    start = len(corpus.ids) - len(ids)
    is_end = ids.data_ptr() == corpus.ids[start:].data_ptr()  # not lines from all over it
    counts = count(ids, corpus.vocabulary.tokens)
    vocabularies = [m.net.char2int for m in models]
    strange = {
        char: n
        for char, n in counts.items()
        if not all(char in chars or UNKNOWN in chars for chars in vocabularies)
    }
    if strange or not is_end:
        encoded = encode_known(ids, corpus.vocabulary.tokens, counts, strange, models)
    else:
        encoded = [corpus.encode_with(tuple(m.net.unique_tokens), start) for m in models]
    if strange:
        shown = " ".join(ascii(char) for char in list(strange)[:10])
        more = f" and {len(strange) - 10} more" if len(strange) > 10 else ""
        notes.append(
            f"{sum(strange.values()):,} characters of {len(strange):,} kinds left out, which the "
            f"model never saw: {shown}{more}"
        )
    if len(encoded[0]) < 2:
        raise UserError(
            f"{name}: {len(encoded[0])} characters that the model knows; at least 2 are needed"
        )
    return Text(name, encoded, split, sum(strange.values()), notes)


def count(ids: Tensor, tokens: tuple[str, ...]) -> dict[str, int]:
    """How often each of ``tokens`` comes in ``ids``, of those that do."""
    counts = np.zeros(len(tokens), np.int64)
    for block in ids.split(BLOCK):
        counts += np.bincount(block.numpy(), minlength=len(tokens))
    return {tokens[i]: int(counts[i]) for i in np.flatnonzero(counts)}


def encode_known(
    ids: Tensor,
    tokens: tuple[str, ...],
    counts: dict[str, int],
    strange: dict[str, int],
    models: list[Model],
) -> list[Tensor]:
    """``ids`` of ``tokens`` as ids of each model, without the ``strange`` characters."""
    keep = np.array([token not in strange for token in tokens])
    n_kept = sum(counts.values()) - sum(strange.values())
    encoded = []
    for model in models:
        place = model.net.char2int
        dtype = np.uint8 if len(place) <= 256 else np.int16
        table = np.array([place.get(t, place.get(UNKNOWN, 0)) for t in tokens], dtype)
        kept, end = np.empty(n_kept, dtype), 0
        for block in ids.split(BLOCK):
            part = table[block.numpy()[keep[block.numpy()]]]
            kept[end : end + len(part)] = part
            end += len(part)
        encoded.append(torch.from_numpy(kept))
    return encoded
