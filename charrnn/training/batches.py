"""Ids -> batches, and which rows of a batch continue the text of the batch before."""

from collections.abc import Iterator

import torch
from torch import Tensor

from charrnn.errors import UserError

LONG_ROW = 1 << 17  # characters; longer rows are read in segments, not from end to end
SEGMENT = 64  # batches


def get_batches(
    int_words: Tensor, batch_size: int, seq_length: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return an iterator of pairs ``(x, y)`` of ``[batch_size, seq_length]`` ids, where ``y`` is
    ``x`` one character later.

    The text is cut into ``batch_size`` rows of ``K * (seq_length + 1)`` characters. They are read
    in windows that overlap by one: the last target of a window is the first input of the next, so
    that a hidden state carried from batch to batch misses no character.

    Raises UserError (at the call, not at the first batch) if the text is too short for one batch.
    """
    batches = Batches(int_words, batch_size, seq_length)
    return (batches.window(i) for i in range(batches.per_epoch))


class Batches:
    """The batches of a whole run. ``batches[step]`` depends on the step's number alone, so that a
    run can be resumed at any step."""

    def __init__(
        self,
        ids: Tensor,
        batch_size: int,
        seq_length: int,
        seed: int = 0,
        own_rows: slice = slice(None),
        cold_starts: float = 0.0,
    ) -> None:
        """``ids`` is ``[n_chars]``, on any device. ``own_rows`` are the rows that this process
        reads. ``cold_starts`` is the probability that a row starts from zeros before a step.

        Raises UserError if the text is too short for one batch.
        """
        shortest = batch_size * (seq_length + 1)
        if len(ids) < shortest:
            raise UserError(
                f"{len(ids)} characters to train on are {shortest - len(ids)} too few for one "
                f"batch of {batch_size} x ({seq_length} + 1); lower --batch-size or --seq-length"
            )
        self.ids, self.batch_size, self.seq_length = ids, batch_size, seq_length
        self.seed, self.own_rows, self.cold_starts = seed, own_rows, cold_starts
        self.row_length = len(ids) // shortest * (seq_length + 1)
        self.per_epoch = (self.row_length - 1) // seq_length
        # a short run reads only a part of a long text: segments from all over it, so that this part
        # is not just the beginnings of the rows
        is_long = self.row_length > LONG_ROW
        self.segment = SEGMENT if is_long else self.per_epoch  # batches that follow each other
        self._epoch, self._start, self._order = -1, 0, [0]
        self._carried = torch.empty(0, 0, dtype=torch.bool)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return ``(x, y)`` of a step; steps are counted over all epochs."""
        epoch, i = divmod(step, self.per_epoch)
        self._prepare(epoch)
        nth, offset = divmod(i, self.segment)
        return self.window(self._order[nth] * self.segment + offset)

    def carried(self, step: int) -> Tensor:
        """Return which rows keep the hidden state of the step before, ``[B]`` bool on the device of
        the ids. The others start from zeros: all rows where the text does not continue, and now and
        then a row by chance."""
        epoch, i = divmod(step, self.per_epoch)
        self._prepare(epoch)
        return self._carried[i]

    def window(self, i: int) -> tuple[Tensor, Tensor]:
        """Return the ``i``-th pair ``(x, y)`` in the order of the text."""
        n = self.batch_size * self.row_length
        rows = self.ids[self._start : self._start + n].view(self.batch_size, -1)[self.own_rows]
        first = i * self.seq_length
        x = rows[:, first : first + self.seq_length]
        return x, rows[:, first + 1 : first + self.seq_length + 1]

    def _prepare(self, epoch: int) -> None:
        """Choose where the rows begin, the order of the segments in this epoch, and which rows
        start from zeros at which step.

        The first epoch begins at the start of the text; later ones begin at a random place that
        costs no batch, so that their windows differ.
        """
        if epoch == self._epoch:
            return
        generator = torch.Generator().manual_seed(self.seed + epoch)
        spare = len(self.ids) - self.batch_size * self.row_length if epoch else 0
        self._start = int(torch.randint(spare + 1, (), generator=generator))
        whole, rest = divmod(self.per_epoch, self.segment)  # an incomplete segment is the last
        order = torch.randperm(whole, generator=generator).tolist()
        self._epoch, self._order = epoch, [*order, whole] if rest else order
        cold = torch.zeros(self.per_epoch, self.batch_size, dtype=torch.bool)
        cold.bernoulli_(self.cold_starts, generator=generator)
        cold[:: self.segment] = True
        self._carried = ~cold[:, self.own_rows].to(self.ids.device)
