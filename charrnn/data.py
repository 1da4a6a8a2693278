"""Text -> ids -> batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.errors import UserError

LONG_ROW = 1 << 17  # characters; longer rows are not read from end to end, but in segments
SEGMENT = 64  # batches
MOST_PAIRED = 300  # kinds of characters whose pairs are counted
MOST_LINES = 1 << 26  # characters of a text that is split by lines, in memory
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


def split_text(
    ids: Tensor,
    val_frac: float,
    tokens: tuple[str, ...] = (),
    val_split: str = "end",
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """(training ids, held-out ids): held out are the last ``val_frac`` of the text, or, with
    ``val_split`` "lines" and ids of ``tokens``, as much in lines from all over it, by ``seed``.

    Raises UserError when either part would hold fewer than the 2 characters a prediction needs,
    and for lines of a text of more than ``MOST_LINES`` characters.
    """
    n_val = round(len(ids) * val_frac)
    if n_val < 2 or len(ids) - n_val < 2:
        raise UserError(
            f"--val-frac {val_frac}: of {len(ids)} characters it holds out {n_val}, and both parts "
            "need at least 2; change --val-frac or give a longer text"
        )
    if val_split == "end":
        return ids[:-n_val], ids[-n_val:]
    if len(ids) > MOST_LINES:
        raise UserError(
            f"--val-split lines: {len(ids):,} characters are more than the {MOST_LINES:,} whose "
            "lines fit into memory; use --val-split end"
        )
    ends = torch.tensor([len(ids)])  # the last line may have no end
    if "\n" in tokens:
        ends = torch.cat(((ids == tokens.index("\n")).nonzero().flatten() + 1, ends)).unique()
    lengths = ends.diff(prepend=torch.tensor([0]))
    order = torch.randperm(len(ends), generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros(len(ends), dtype=torch.bool)
    chosen[order[lengths[order].cumsum(0) <= max(n_val, int(lengths.min()))]] = True
    held_out = chosen.repeat_interleave(lengths)
    if min(int(held_out.sum()), int((~held_out).sum())) < 2:
        raise UserError("--val-split lines: the text has too few lines; use --val-split end")
    return ids[~held_out], ids[held_out]


def pair_costs(rows: Tensor, n_tokens: int) -> Tensor:
    """Nats of each character after each other ``[n_tokens, n_tokens]``, by the pairs in ids
    ``[R, T]``."""
    pairs = (rows[:, :-1].long() * n_tokens + rows[:, 1:]).flatten()
    counts = pairs.bincount(minlength=n_tokens**2).view(n_tokens, -1) + 0.1
    return -(counts / counts.sum(1, keepdim=True)).log()


def unlikeness(train_ids: Tensor, val_ids: Tensor, n_tokens: int) -> float:
    """How many nats more a held-out character costs than one of training, each given the one
    before, by the pairs of characters counted in half of the training text.

    That is every other piece of 500 characters; what lies between is what the held-out text is
    compared with. 0 where there are too many kinds of characters, or too little text, to count.
    """
    pieces = train_ids[: len(train_ids) // 1000 * 1000].view(-1, 2, 500)
    if n_tokens > MOST_PAIRED or len(pieces) < 5:
        return 0.0
    counted, between = pieces[:: len(pieces) // 2000 + 1].long().unbind(1)
    costs = pair_costs(counted, n_tokens)
    held_out = val_ids[:500_000].long()
    seen = costs[between[:, :-1], between[:, 1:]].mean()
    return (costs[held_out[:-1], held_out[1:]].mean() - seen).item()


def get_batches(
    int_words: Tensor, batch_size: int, seq_length: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs ``(x, y)`` of ``[batch_size, seq_length]`` ids; ``y`` is ``x`` one character later.

    The text is cut into ``batch_size`` rows of ``K * (seq_length + 1)`` characters and read in
    windows that overlap by one, so that each window's first input is the one before's last target:
    a hidden state carried from batch to batch misses no character.

    Raises UserError (at the call, not at the first batch) when the text is too short for one batch.
    """
    batches = Batches(int_words, batch_size, seq_length)
    return (batches.window(i) for i in range(batches.per_epoch))


def count_batches(n_chars: int, batch_size: int, seq_length: int) -> int:
    """How many pairs ``get_batches`` gives for a text of ``n_chars`` characters."""
    row = n_chars // (batch_size * (seq_length + 1)) * (seq_length + 1)
    return max(row - 1, 0) // seq_length


class Batches:
    """The batches of a whole run: ``batches[step]`` is a function of the step's number alone, so
    that a run can be taken up at any step."""

    def __init__(
        self,
        ids: Tensor,
        batch_size: int,
        seq_length: int,
        seed: int = 0,
        mine: slice = slice(None),
        cold_starts: float = 0.0,
    ) -> None:
        """``ids`` ``[n_chars]`` on any device; ``mine``: the rows that this process reads.
        ``cold_starts``: the probability that a row starts from zeros before a step.

        Raises UserError when the text is too short for one batch.
        """
        shortest = batch_size * (seq_length + 1)
        if len(ids) < shortest:
            raise UserError(
                f"{len(ids)} characters to train on are {shortest - len(ids)} too few for one "
                f"batch of {batch_size} x ({seq_length} + 1); lower --batch-size or --seq-length"
            )
        self.ids, self.batch_size, self.seq_length = ids, batch_size, seq_length
        self.seed, self.mine, self.cold_starts = seed, mine, cold_starts
        self.row_length = len(ids) // shortest * (seq_length + 1)
        self.per_epoch = count_batches(len(ids), batch_size, seq_length)
        # a short run reads only part of a long text: in segments from all over it, not the same
        # few places of it from end to end
        is_long = self.row_length > LONG_ROW
        self.segment = SEGMENT if is_long else self.per_epoch  # batches read on from one place
        self._epoch, self._start, self._order = -1, 0, [0]
        self._carried = torch.empty(0, 0, dtype=torch.bool)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """``(x, y)`` of this step, counted over all epochs."""
        epoch, i = divmod(step, self.per_epoch)
        self._prepare(epoch)
        nth, offset = divmod(i, self.segment)
        return self.window(self._order[nth] * self.segment + offset)

    def carried(self, step: int) -> Tensor:
        """Which rows of this step carry on the state that the step before left, ``[B]`` bool on the
        device of the text. The others start from zeros: all rows where the text does not go on, and
        each row now and then by chance."""
        epoch, i = divmod(step, self.per_epoch)
        self._prepare(epoch)
        return self._carried[i]

    def window(self, i: int) -> tuple[Tensor, Tensor]:
        """The ``i``-th pair of the rows as they lie in the text."""
        n = self.batch_size * self.row_length
        rows = self.ids[self._start : self._start + n].view(self.batch_size, -1)[self.mine]
        first = i * self.seq_length
        x = rows[:, first : first + self.seq_length]
        return x, rows[:, first + 1 : first + self.seq_length + 1]

    def _prepare(self, epoch: int) -> None:
        """Choose where the rows begin, which segments follow each other in this epoch, and which
        rows start from zeros at which step.

        Later epochs than the first start anywhere that costs no batch, so that windows differ.
        """
        if epoch == self._epoch:
            return
        generator = torch.Generator().manual_seed(self.seed + epoch)
        spare = len(self.ids) - self.batch_size * self.row_length if epoch else 0
        self._start = int(torch.randint(spare + 1, (), generator=generator))
        whole, rest = divmod(self.per_epoch, self.segment)  # an incomplete segment comes last
        order = torch.randperm(whole, generator=generator).tolist()
        self._epoch, self._order = epoch, order + [whole] * (rest > 0)
        cold = torch.zeros(self.per_epoch, self.batch_size, dtype=torch.bool)
        cold.bernoulli_(self.cold_starts, generator=generator)
        cold[:: self.segment] = True
        self._carried = ~cold[:, self.mine].to(self.ids.device)
