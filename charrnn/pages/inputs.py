"""Load the text for charrnn.eval and charrnn.neurons: choose the part, encode it for each model,
and count the characters that a model does not know."""

import os
import unicodedata
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from charrnn.errors import UserError
from charrnn.network.loaded import LoadedModel
from charrnn.system.cli import Parser
from charrnn.system.console import brief, say
from charrnn.system.files import check_output
from charrnn.text.corpus import LARGEST_VOCABULARY, Corpus, load_corpus
from charrnn.text.download import ANNA
from charrnn.text.vocabulary import UNKNOWN, code_points, text_of

AT_A_TIME = 1 << 20  # characters at a time, of which several copies are made


@dataclass(frozen=True)
class Text:
    """A text as the models read it."""

    name: str
    ids: list[Tensor]  # [T] of each model, without what one of them does not know
    split: str  # "val": what training held out; "all"
    left_out: int  # characters that a model never saw
    notes: list[str]  # sentences for the reader

    @property
    def part(self) -> str:
        """Which part of the text is read, in words."""
        return "the part held out in training" if self.split == "val" else "all of it"


def add_reading_flags(p: Parser) -> None:
    """Add the flags of a program in which models read a text."""
    p.add_argument(
        "--data",
        metavar="PATH",
        nargs="+",
        help="texts, a folder, or python-docs (default: the text the model was trained on)",
    )
    encoding = "of the texts (default: utf-8; the model's own text is recognised in any)"
    p.add_argument("--encoding", metavar="NAME", help=encoding)
    p.add_argument(
        "--split",
        choices=("val", "all"),
        help="val: only the end that training held out (default where the model's own text is "
        "recognised); all: all of it (default, and the only way, for another text)",
    )

    p.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:N or mps")


def read_text(args: Namespace, models: list[LoadedModel], page: str | None) -> Text:
    """Return the text that the flags name, as the models read it, and print its notes on stderr.

    Raises UserError as ``read_corpus`` and ``read_for_models`` do, and if the file ``page``, which
    is written later, is one of the text's own.
    """
    corpus = read_corpus(args, models)
    if page is not None:
        check_output(page, inputs=corpus.paths, special=True)
    text = read_for_models(args, models, corpus)
    for note in text.notes:
        say(note)
    return text


def read_corpus(args: Namespace, models: list[LoadedModel]) -> Corpus:
    """The text that the flags name, or else the first model's own, which is recognised in the
    encoding of its training.

    Raises UserError as load_corpus does, and where the model's own text cannot be found.
    """
    own = [] if args.encoding else [model.own_text() for model in models]
    own = [(encoding, fingerprint) for encoding, fingerprint in own if fingerprint]
    name = "" if args.data else models[0].text_name
    corpus = load_corpus(
        _find(models[0], name) if name else args.data,
        encoding=args.encoding or "utf-8",
        own=own,
        most_tokens=LARGEST_VOCABULARY,
    )
    if name and not models[0].trained_on(corpus):
        raise _not_found(models[0], name)
    return corpus


def _find(model: LoadedModel, name: str) -> list[str] | None:
    """Return the files that a model names as its text, as ``load_corpus`` takes them: in the
    current folder or in that of the model. Raises UserError if they are in neither."""
    if name == "python-docs":
        return [name]
    names = [os.path.basename(part) for part in name.split(", ")]
    for folder in (Path(), Path(model.path).parent):
        if all((folder / part).is_file() for part in names):
            return [str(folder / part) for part in names]
    if name == ANNA.name:
        return None
    raise _not_found(model, name)


def _not_found(model: LoadedModel, name: str) -> UserError:
    return UserError(
        f"{model.path}: its text, {brief(name)}, is not here, or has changed; name a text with "
        "--data"
    )


def read_for_models(args: Namespace, models: list[LoadedModel], corpus: Corpus) -> Text:
    """The part of the corpus that is to be read, as ids of each model.

    Characters that one of the models never saw are left out and counted, unless it has U+FFFD for
    them. Raises UserError when fewer than the 2 characters are left that a prediction needs, and
    for models that held out parts of the corpus which have no common one.
    """
    own = [model.trained_on(corpus) for model in models]
    notes = list(corpus.notes)
    split = args.split or ("val" if True in own else "all")
    if split == "val" and all(answer is False for answer in own):
        split = "all"
        notes.append("not the text the model was trained on: all of it is read")
    ids = corpus.ids
    if split == "val":
        mine = True if True in own else None  # None: an older checkpoint, which does not say
        holders = [model for model, answer in zip(models, own, strict=True) if answer is mine]
        ids = held_out_by_all(holders, corpus)

    def pieces() -> Iterator[str]:
        yield from map(text_of, corpus.blocks(ids, AT_A_TIME))

    reader = Reader(models)
    form, unseen = reader.best_form(pieces)
    if form:
        notes.append(f"read in its {form} form, which looks the same and which the model knows")
    strange = {char: n for char, n in unseen.items() if not reader.readable[ord(char)]}
    if strange:
        shown = " ".join(ascii(char) for char in list(strange)[:10])
        more = f" and {len(strange) - 10} more" if len(strange) > 10 else ""
        notes.append(
            f"{sum(strange.values()):,} characters of {len(strange):,} kinds left out, which the "
            f"model never saw: {shown}{more}"
        )
    encoded = []
    for model, table in zip(models, reader.tables, strict=True):
        if not form and not strange and model.net.vocabulary == corpus.vocabulary:
            encoded.append(ids)
        else:
            new_ids = np.where(reader.readable, table, -1)  # of each code point
            encoded.append(corpus.recode(in_form(pieces(), form), new_ids))
    if len(encoded[0]) < 2:
        raise UserError(
            f"{corpus.name}: {len(encoded[0])} characters that the model knows; at least 2 are "
            "needed"
        )
    return Text(corpus.name, encoded, split, sum(strange.values()), notes)


def held_out_by_all(models: list[LoadedModel], corpus: Corpus) -> Tensor:
    """Return the ids of what all these models held out of their text. Raises UserError as
    ``split_text`` does, and if they held out different lines, paragraphs or files."""
    if len({model.how_split() for model in models}) == 1:
        return models[0].held_out(corpus)
    if all(model.how_split()[0] == "end" for model in models):
        return min((model.held_out(corpus) for model in models), key=len)
    raise UserError(
        f"{models[0].path} and {models[1].path} held out different parts of this text, so each "
        "may have learned what the other did not; score them on another text, or with --split all"
    )


Form = Literal["", "NFC", "NFD"]
# as the text is, composed, decomposed (Unicode Standard Annex 15)
FORMS: tuple[Form, ...] = ("", "NFC", "NFD")


class Reader:
    """Encodes text for several models: as ids of each, of the same characters."""

    def __init__(self, models: list[LoadedModel]) -> None:
        self.models = models
        self.tables = []  # of each model: the id of each code point, -1 if it has none
        self.seen = np.ones(0x110000, bool)  # code points that all models saw in training
        for model in models:
            tokens = model.net.vocabulary.tokens
            table = np.full(0x110000, -1, np.int32)
            table[code_points("".join(tokens))] = np.arange(len(tokens))
            self.seen &= table >= 0
            if UNKNOWN in tokens:  # stands for every other character
                table[table < 0] = tokens.index(UNKNOWN)
            self.tables.append(table)
        self.readable = np.all([table >= 0 for table in self.tables], axis=0)  # code points

    def best_form(self, pieces: Callable[[], Iterable[str]]) -> tuple[Form, dict[str, int]]:
        """Return the normal form of the text with the fewest unknown characters, and how often each
        of these occurs. The text is left as it is where possible; all forms look the same."""
        best: tuple[Form, dict[str, int]] = "", {}
        for form in FORMS:
            unseen: Counter[int] = Counter()
            for points in in_form(pieces(), form):
                kinds, counts = np.unique(points[~self.seen[points]], return_counts=True)
                unseen.update(dict(zip(kinds.tolist(), counts.tolist(), strict=True)))
            if not form or unseen.total() < sum(best[1].values()):
                best = form, {chr(point): n for point, n in sorted(unseen.items())}
            if not unseen:
                break
        return best


def in_form(pieces: Iterable[str], form: Form) -> Iterator[np.ndarray]:
    """Yield the code points of a text in a normal form. It is cut at line ends, where nothing is
    combined."""
    if not form:
        yield from map(code_points, pieces)
        return
    rest = ""
    for piece in pieces:
        lines, newline, rest = (rest + piece).rpartition("\n")
        if not newline:  # a long line is cut anywhere, or it would have to be held in memory
            lines, rest = rest, ""
        yield code_points(unicodedata.normalize(form, lines + newline))
    if rest:
        yield code_points(unicodedata.normalize(form, rest))
