"""Model, text -> loss."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.errors import UserError
from charrnn.network.device import torch_defaults
from charrnn.network.model import CharRNN, Hidden, eval_mode, map_hidden
from charrnn.text.split import MOST_PAIRED, pair_costs

CONTEXT = 1024  # characters after which a trained model has forgotten what came before them
SHORT_CONTEXT = 256  # the same for an evaluation on the way; costs at most 0.005 nats
PIECES = 64  # read by an evaluation on the way
PLACES = 100  # tried for the first of them
MOST_ROWS = 64  # read side by side: more make a step no faster
MOST_NUMBERS = 1 << 22  # of one-hot input, and of logits, at a time
COMPARED = 256  # characters of each row that are read twice, to find a model that loses its way


class Evaluation(NamedTuple):
    """The result for a whole text, in nats per character."""

    loss: float
    cold_start_gap: float  # how much more a character costs after CONTEXT than in its full context


@torch.no_grad()
def read(
    model: CharRNN, ids: Tensor, places: Tensor, hidden: Hidden, at_a_time: int = 64
) -> Iterator[tuple[Tensor, Tensor, Hidden]]:
    """Read the characters ``ids[places]``, where ``places`` ``[R, T]`` are rows side by side.

    Yield, for some characters of each row at a time, the logits after them ``[R, C, V]``, their
    places ``[R, C]``, and the state after the last of them. C is at most ``at_a_time``, and less
    for a large vocabulary.
    """
    n_rows, n_labels = len(places), len(model.unique_tokens)
    chunk = max(1, min(at_a_time, MOST_NUMBERS // max(1, n_rows * n_labels)))
    for part in places.split(chunk, dim=1) if places.numel() else ():
        logits, hidden = model(ids[part].to(model.fc.weight.device), hidden)
        yield logits.view(n_rows, -1, n_labels), part, hidden


def state_after(model: CharRNN, ids: Tensor, places: Tensor, hidden: Hidden) -> Hidden:
    """Return the state after reading ``ids[places]`` from the state ``hidden``."""
    for _, _, after in read(model, ids, places, hidden):
        hidden = after
    return hidden


@torch.no_grad()
def read_rows(
    model: CharRNN, ids: Tensor, shortest: int = 2 * CONTEXT, at_a_time: int = 64
) -> Iterator[tuple[Tensor, Tensor, Hidden]]:
    """Read all of ``ids[:-1]`` in rows of at least ``shortest`` characters, as ``read`` does.

    The rows lie one after the other in the text. Each but the first begins in the state after the
    ``CONTEXT`` characters before it (at most half a row), which are read first and not yielded. The
    last one reads on to the end of the text, alone.
    """
    n_read = len(ids) - 1
    most = max(1, MOST_NUMBERS // len(model.unique_tokens))
    n_rows = max(1, min(MOST_ROWS, n_read // shortest, most))
    width = n_read // n_rows
    starts = torch.arange(n_rows)[:, None] * width
    context = starts[1:] + torch.arange(-min(CONTEXT, width // 2), 0)
    hidden = state_after(model, ids, context, model.init_hidden(n_rows - 1))
    state = map_hidden(lambda h: F.pad(h, (0, 0, 1, 0)), hidden)  # the first begins from zeros
    rows = starts + torch.arange(width)
    for logits, places, hidden in read(model, ids, rows, state, at_a_time):
        yield logits, places, hidden
    last = map_hidden(lambda h: h[:, -1:].contiguous(), hidden)
    yield from read(model, ids, torch.arange(n_rows * width, n_read)[None], last, at_a_time)


@torch_defaults()
def evaluate(model: CharRNN, ids: Tensor, dtype: torch.dtype | None = None) -> float:
    """Return the cross-entropy in nats per character of ``ids[1:]``, each given all before it.

    The text is cut into rows of at least 2,048 characters, which are read side by side. Each row
    first reads the 1,024 characters before it without scoring them. So an evaluation takes at most
    1.5 passes over the text, and for a trained model it is within 1e-3 of reading from end to end.
    ``dtype`` is the precision of the products (autocast), by default that of the weights. Raises
    UserError for fewer than 2 characters.
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
    """Return the loss of ``evaluate``, and how far it is from reading the text from end to end.

    For that the first ``compared`` characters of each row are read again after all of the row
    before. ``on_progress`` is called with the share of the text read so far.
    """
    if len(ids) < 2:
        raise UserError(f"{len(ids)} characters: evaluating needs at least 2")
    sums: list[Tensor] = []  # left on the device: each look at one would wait for it
    cold: list[Tensor] = []  # losses of each row's first characters, [R, C]
    n_read, gap = 0, 0.0
    with eval_mode(model), _precision(model, dtype):
        for logits, places, hidden in read_rows(model, ids):
            losses = _losses(logits, ids[places + 1])
            sums.append(losses.sum())
            if len(places) > 1:  # else the last row reads on
                ends = hidden
                if places[0, 0] < compared:
                    starts = places[1:, :1] - places[0, 0]
                    cold.append(losses)
            n_read += places.numel()
            on_progress(n_read / (len(ids) - 1))
        if cold:  # each row but the first begins once more, where the row before ended
            before = map_hidden(lambda h: h[:, :-1].contiguous(), ends)
            reading = read(model, ids, starts + torch.arange(compared), before)
            warm = [_losses(logits, ids[places + 1]) for logits, places, _ in reading]
            gap = (torch.cat(cold, 1)[1:, :compared] - torch.cat(warm, 1)).mean().item()
    return Evaluation(math.fsum(torch.stack(sums).tolist()) / (len(ids) - 1), gap)


def choose_pieces(train_ids: Tensor, val_ids: Tensor, n_tokens: int, n_chars: int) -> Tensor:
    """Return where the pieces begin that ``evaluate_pieces`` reads, ``[PIECES]``; an empty tensor
    if reading all of ``val_ids`` is no more work.

    The pieces are spread evenly. Of ``PLACES`` places for the first one, the one is chosen for
    which a bigram model of the training text gives the pieces the loss of the whole text: otherwise
    a few hard pages more or less would decide the figure.
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
    """Estimate the loss of ``evaluate`` from ``n_chars`` characters, in pieces of equal length that
    begin at ``starts``, each after 256 characters that are not scored. Without ``starts`` the whole
    text is read."""
    if not len(starts):
        return evaluate(model, ids, dtype)
    width = -(-n_chars // len(starts))
    sums: list[Tensor] = []
    starts = starts[:, None]
    with eval_mode(model), _precision(model, dtype):
        context = starts + torch.arange(-SHORT_CONTEXT, 0)
        hidden = state_after(model, ids, context, model.init_hidden(len(starts)))
        for logits, places, _ in read(model, ids, starts + torch.arange(width), hidden):
            sums.append(_losses(logits, ids[places + 1]).sum())
    return math.fsum(torch.stack(sums).tolist()) / (len(starts) * width)


def _precision(model: CharRNN, dtype: torch.dtype | None) -> torch.autocast:
    """Return the context that autocasts to ``dtype``; None is the precision of the weights."""
    rounded = dtype not in (None, torch.float32)
    return torch.autocast(model.fc.weight.device.type, dtype, enabled=rounded)


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy in nats of each character ``[R, C]``: logits ``[R, C, V]``, ids
    ``[R, C]``."""
    wanted = targets.to(logits.device).long().flatten()
    losses = F.cross_entropy(logits.float().flatten(0, 1), wanted, reduction="none")
    return losses.view(targets.shape)
