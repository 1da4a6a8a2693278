"""Sentences on what in a text may surprise those who train on it."""

import unicodedata

import numpy as np

from charrnn.text.corpus import Corpus
from charrnn.text.sources import BLOCK

TABLES = (".csv", ".tsv", ".jsonl")
INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")  # Unicode categories: control, format, separators
# of these, characters that keyboards have, or that join letters and emoji
TYPED = frozenset(" \n\t\u3000\u200c\u200d")
MOST_KINDS = 5  # that are named


def advice(corpus: Corpus) -> list[str]:
    """Return sentences on the tables in a text, and on its invisible characters."""
    sentences = []
    if tables := [name for name in corpus.file_names if name.lower().endswith(TABLES)]:
        more = f" and {len(tables) - 1} more" if len(tables) > 1 else ""
        sentences.append(
            f"{tables[0]}{more}: read as it is, with all fields, separators and quotes; "
            "docs/tips.md shows how to extract a column"
        )
    if counts := count_invisible(corpus):
        names = [f"{n:,} {_name(char)}" for char, n in counts.items()]
        if len(names) > MOST_KINDS:
            names = [*names[:MOST_KINDS], "others"]
        sentences.append(
            f"{sum(counts.values()):,} invisible characters that are not plain spaces "
            f"({', '.join(names)}): what you type in a prime will not match them"
        )
    return sentences


def count_invisible(corpus: Corpus) -> dict[str, int]:
    """Return how often each invisible character that people do not type comes, most frequent first.

    The text is read block by block, if its vocabulary has any.
    """
    tokens = corpus.vocabulary.tokens
    is_invisible = np.array(
        [unicodedata.category(t) in INVISIBLE and t not in TYPED for t in tokens]
    )
    counts = np.zeros(len(tokens), np.int64)
    if is_invisible.any():
        for ids in corpus.ids.split(BLOCK):
            block = ids.numpy()
            counts += np.bincount(block[is_invisible[block]], minlength=len(tokens))
    order = np.argsort(-counts, kind="stable")
    return {tokens[i]: int(counts[i]) for i in order if counts[i]}


def _name(char: str) -> str:
    """Return a character's number in Unicode, and its name where it has one."""
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".rstrip()
