"""Text -> ids -> batches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.errors import UserError

UNKNOWN = "\ufffd"  # stands for rare characters in a vocabulary made with --min-count


def code_points(text: str) -> np.ndarray:
    """The Unicode code point of each character, ``[len(text)]`` uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@dataclass(frozen=True)
class Vocabulary:
    """The distinct characters a model knows; a character's id is its place in ``tokens``."""

    tokens: tuple[str, ...]

    @classmethod
    def from_text(cls, text: str) -> "Vocabulary":
        """The characters of ``text`` in code-point order, the same in every process."""
        return cls(tuple(chr(point) for point in np.unique(code_points(text))))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> Tensor:
        """Ids of the characters, ``[len(text)]`` int64.

        Raises UserError that names the characters not in the vocabulary, unless it holds U+FFFD,
        which then stands for them.
        """
        points = code_points(text)
        known = code_points("".join(self.tokens))
        order = np.argsort(known)
        place = np.searchsorted(known, points, sorter=order).clip(max=len(known) - 1)
        ids = order[place]
        strange = known[ids] != points
        if strange.any() and UNKNOWN in self.tokens:
            ids[strange] = self.tokens.index(UNKNOWN)
        elif strange.any():
            names = " ".join(ascii(chr(point)) for point in np.unique(points[strange])[:10])
            raise UserError(f"characters the model never saw: {names}; leave them out")
        return torch.from_numpy(ids.astype(np.int64))

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """The characters with these ids."""
        return "".join(self.tokens[i] for i in (ids.tolist() if isinstance(ids, Tensor) else ids))


def one_hot_encode(int_words: Tensor, n_labels: int) -> Tensor:
    """``[B, T]`` ids -> ``[B, T, n_labels]`` float32, a single 1 per character."""
    return F.one_hot(int_words.long(), n_labels).float()


def split_text(ids: Tensor, val_frac: float) -> tuple[Tensor, Tensor]:
    """(training ids, held-out ids): the held-out part is the last ``val_frac`` of the text.

    Raises UserError when either part would hold fewer than the 2 characters a prediction needs.
    """
    n_val = round(len(ids) * val_frac)
    if n_val < 2 or len(ids) - n_val < 2:
        raise UserError(
            f"--val-frac {val_frac}: of {len(ids)} characters it holds out {n_val}, and both parts "
            "need at least 2; change --val-frac or give a longer text"
        )
    return ids[:-n_val], ids[-n_val:]


def get_batches(
    int_words: Tensor, batch_size: int, seq_length: int, order: Iterable[int] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs ``(x, y)`` of ``[batch_size, seq_length]`` ids; ``y`` is ``x`` one character later.

    The text is cut into ``batch_size`` rows of ``K * (seq_length + 1)`` characters and read in
    windows that overlap by one, so that each window's first input is the one before's last target:
    a hidden state carried from batch to batch misses no character. ``order``: which windows to
    read, one after the other; None: all as they come.

    Raises UserError (at the call, not at the first batch) when the text is too short for one batch.
    """
    shortest = batch_size * (seq_length + 1)
    windows = len(int_words) // shortest
    if windows == 0:
        raise UserError(
            f"{len(int_words)} characters to train on are {shortest - len(int_words)} too few for "
            f"one batch of {batch_size} x ({seq_length} + 1); lower --batch-size or --seq-length"
        )
    rows = int_words[: windows * shortest].view(batch_size, -1)
    if order is None:
        order = range(count_batches(len(int_words), batch_size, seq_length))
    starts = (i * seq_length for i in order)
    return ((rows[:, i : i + seq_length], rows[:, i + 1 : i + seq_length + 1]) for i in starts)


def count_batches(n_chars: int, batch_size: int, seq_length: int) -> int:
    """How many pairs ``get_batches`` gives for a text of ``n_chars`` characters."""
    row = n_chars // (batch_size * (seq_length + 1)) * (seq_length + 1)
    return max(row - 1, 0) // seq_length
