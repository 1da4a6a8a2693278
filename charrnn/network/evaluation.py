"""Model, text -> loss."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.errors import UserError
from charrnn.network.device import torch_defaults
from charrnn.network.model import CharRNN, Hidden, eval_mode, map_hidden
from charrnn.text.split import MOST_PAIRED, pair_costs

CONTEXT = 1024  # characters after which a trained model has forgotten what came before them
SHORT_CONTEXT = 256  # adds at most 0.005 nats to a figure on the way
PIECES = 64  # that a figure on the way is of
PLACES = 100  # where the first of them may begin
MOST_ROWS = 64  # read side by side: more make a step no faster
MOST_NUMBERS = 1 << 22  # of one-hot input, and of logits, at a time
COMPARED = 256  # characters of each row, to find a model that loses its way


class Evaluation(NamedTuple):
    """Of a whole text, in nats per character."""

    loss: float
    cold_start_gap: float  # how much more a character costs after CONTEXT than when reading on


def rows_with_context(ids: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """``ids`` cut into rows to be read side by side ``[R, W]``, and what stands before each of them
    but the first ``[R - 1, C]``: ``CONTEXT`` characters, at most half a row.

    Both are views; up to R - 1 ids at the end belong to no row.
    """
    width = len(ids) // n_rows
    context = min(CONTEXT, width // 2)
    contexts = ids[width - context :].unfold(0, context, width) if context else ids.new_empty(0, 0)
    return ids[: n_rows * width].reshape(n_rows, width), contexts[: n_rows - 1]


def first_from_zeros(hidden: Hidden) -> Hidden:
    """The state in which R rows begin, from that of all but the first: nothing precedes that."""
    return map_hidden(lambda state: F.pad(state, (0, 0, 1, 0)), hidden)


@torch_defaults()
def evaluate(model: CharRNN, ids: Tensor, dtype: torch.dtype | None = None) -> float:
    """Cross-entropy in nats per character of ``ids[1:]``, each given what comes before it.

    The text is cut into rows, of at least 2,048 characters, read side by side; each first reads the
    1,024 characters before it, unscored, so that the whole takes at most 1.5 passes over the text
    and is within 1e-3 of reading a trained model from end to end. ``dtype``: the precision of the
    products (autocast); None: that of the weights. Raises UserError for fewer than 2 characters.
    """
    return evaluate_all(model, ids, dtype, compared=0).loss


@torch.no_grad()
def evaluate_all(
    model: CharRNN,
    ids: Tensor,
    dtype: torch.dtype | None = None,
    on_progress: Callable[[float], object] = lambda share: None,
    compared: int = COMPARED,
) -> Evaluation:
    """The loss that ``evaluate`` returns, and whether its rows are scored as a text that is read
    from end to end: ``compared`` characters of each are read again after all of the row before.

    ``on_progress`` is called now and then with the share of the rows read so far.
    """
    if len(ids) < 2:
        raise UserError(f"{len(ids)} characters: evaluating needs at least 2")
    n_labels = len(model.unique_tokens)
    n_rows = max(1, min(MOST_ROWS, (len(ids) - 1) // (2 * CONTEXT), MOST_NUMBERS // n_labels))
    x, contexts = rows_with_context(ids[:-1], n_rows)
    y, rest = ids[1 : x.numel() + 1].reshape(x.shape), ids[x.numel() :]
    sums: list[Tensor] = []  # left on the device: each look at one would wait for it
    first: list[Tensor] = []  # losses of each row's first characters, [R, C]

    def score_rows(i: int, logits: Tensor) -> None:
        losses = _losses(logits, y[:, i:])
        sums.append(losses.sum())
        if i < compared:
            first.append(losses)
        on_progress((i + losses.shape[1]) / x.shape[1])

    def score_rest(i: int, logits: Tensor) -> None:
        sums.append(_losses(logits, rest[None, i + 1 :]).sum())

    with eval_mode(model), _precision(model, dtype):
        hidden = model.init_hidden(n_rows - 1)
        if n_rows > 1:
            hidden = _read(model, contexts, hidden)
        hidden = _read(model, x, first_from_zeros(hidden), score_rows)
        last = map_hidden(lambda state: state[:, -1:].contiguous(), hidden)
        _read(model, rest[None, :-1], last, score_rest)  # the last row reads on
        gap = 0.0
        if (
            n_rows > 1 and compared
        ):  # each row but the first begins once more, where the row before ended
            again: list[Tensor] = []
            before = map_hidden(lambda state: state[:, :-1].contiguous(), hidden)
            _read(
                model,
                x[1:, :compared],
                before,
                lambda i, logits: again.append(_losses(logits, y[1:, i:])),
            )
            gap = (torch.cat(first, 1)[1:, :compared] - torch.cat(again, 1)).mean().item()
    return Evaluation(math.fsum(torch.stack(sums).tolist()) / (len(ids) - 1), gap)


def choose_pieces(train_ids: Tensor, val_ids: Tensor, n_tokens: int, n_chars: int) -> Tensor:
    """Where the pieces begin that ``evaluate_pieces`` reads, ``[PIECES]``, or nothing where
    reading all of ``val_ids`` is no more work.

    They are spread evenly, and placed so that their pairs of characters are as costly as those of
    the whole text, by the pairs of the training text: else a few hard pages more or less would
    decide the figure.
    """
    if n_chars + PIECES * SHORT_CONTEXT >= len(val_ids):
        return torch.empty(0, dtype=torch.long)
    width = -(-n_chars // PIECES)
    distance = (len(val_ids) - 1 - width - SHORT_CONTEXT) / PIECES
    grid = SHORT_CONTEXT + torch.arange(PIECES, dtype=torch.float64) * distance
    shifts = torch.linspace(0, distance, PLACES, dtype=torch.float64)
    if n_tokens > MOST_PAIRED or len(val_ids) > MOST_NUMBERS:
        return (grid + distance / 2).long()
    pieces = train_ids[: len(train_ids) // 1000 * 1000].view(-1, 1000)
    costs = pair_costs(pieces[:: len(pieces) // 2000 + 1], n_tokens)
    cost = costs[val_ids[:-1].long(), val_ids[1:].long()]
    sums = F.pad(cost.double().cumsum(0), (1, 0))
    starts = (grid + shifts[:, None]).long()  # [PLACES, PIECES]
    means = (sums[starts + width] - sums[starts]).sum(1) / (PIECES * width)
    return starts[(means - cost.mean()).abs().argmin()]


@torch.no_grad()
def evaluate_pieces(
    model: CharRNN, ids: Tensor, starts: Tensor, n_chars: int, dtype: torch.dtype | None = None
) -> float:
    """About what ``evaluate`` returns, from ``n_chars`` characters in pieces of equal length that
    begin at ``starts``, each after 256 that are not scored. Without ``starts`` all is read."""
    if not len(starts):
        return evaluate(model, ids, dtype)
    width = -(-n_chars // len(starts))
    rows = ids[starts[:, None] + torch.arange(-SHORT_CONTEXT, width + 1)]
    contexts, pieces = rows[:, :SHORT_CONTEXT], rows[:, SHORT_CONTEXT:]
    sums: list[Tensor] = []
    with eval_mode(model), _precision(model, dtype):
        hidden = _read(model, contexts, model.init_hidden(len(rows)))
        _read(
            model,
            pieces[:, :-1],
            hidden,
            lambda i, logits: sums.append(_losses(logits, pieces[:, i + 1 :]).sum()),
        )
    return math.fsum(torch.stack(sums).tolist()) / (len(rows) * width)


def _precision(model: CharRNN, dtype: torch.dtype | None) -> torch.autocast:
    """Autocast to ``dtype``, whatever surrounds it; None: the precision of the weights."""
    rounded = dtype not in (None, torch.float32)
    return torch.autocast(model.fc.weight.device.type, dtype, enabled=rounded)


def _read(
    model: CharRNN,
    x: Tensor,
    hidden: Hidden,
    score: Callable[[int, Tensor], object] = lambda i, logits: None,
) -> Hidden:
    """Read the ids ``x`` ``[R, T]``, C characters of each row at a time; return the state after
    them. ``score`` is called with how many were read before, and the logits ``[R, C, V]``."""
    n_rows, n_labels = len(x), len(model.unique_tokens)
    chunk = max(1, min(64, MOST_NUMBERS // (n_rows * n_labels)))
    for i in range(0, x.shape[1], chunk):
        logits, hidden = model(x[:, i : i + chunk].to(model.fc.weight.device), hidden)
        score(i, logits.view(n_rows, -1, n_labels))
    return hidden


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each character: logits ``[R, C, V]``, the first C of ``y`` ``[R, T]`` ->
    ``[R, C]`` nats."""
    n_rows, length, _ = logits.shape
    targets = y[:, :length].to(logits.device).long().flatten()
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets, reduction="none")
    return losses.view(n_rows, length)
