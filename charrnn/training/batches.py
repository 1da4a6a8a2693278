"""Ids -> batches, and which rows carry their state on."""

from collections.abc import Iterator

import torch
from torch import Tensor

from charrnn.errors import UserError

LONG_ROW = 1 << 17  # characters; longer rows are not read from end to end, but in segments
SEGMENT = 64  # batches


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
