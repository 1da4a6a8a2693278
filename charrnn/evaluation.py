"""Model, text -> loss."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.errors import UserError
from charrnn.model import CharRNN, Hidden, eval_mode, map_hidden

CONTEXT = 1024  # characters after which a trained model has forgotten what came before them
MOST_ROWS = 64  # read side by side: more make a step no faster
MOST_NUMBERS = 1 << 22  # of one-hot input, and of logits, at a time


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


@torch.no_grad()
def evaluate(model: CharRNN, ids: Tensor, dtype: torch.dtype | None = None) -> float:
    """Cross-entropy in nats per character of ``ids[1:]``, each given what comes before it.

    The text is cut into rows, of at least 2,048 characters, read side by side; each first reads the
    1,024 characters before it, unscored, so that the whole takes at most 1.5 passes over the text
    and is within 1e-3 of reading a trained model from end to end. ``dtype``: the precision of the
    products (autocast); None: that of the weights. Raises UserError for fewer than 2 characters.
    """
    if len(ids) < 2:
        raise UserError(f"{len(ids)} characters: evaluating needs at least 2")
    device, n_labels = model.fc.weight.device, len(model.unique_tokens)
    n_rows = max(1, min(MOST_ROWS, (len(ids) - 1) // (2 * CONTEXT), MOST_NUMBERS // n_labels))
    chunk = max(1, min(64, MOST_NUMBERS // (n_rows * n_labels)))  # characters of each row at a time
    rounded = dtype not in (None, torch.float32)
    losses: list[Tensor] = []  # left on the device: each look at one would wait for it

    def read(x: Tensor, y: Tensor | None, hidden: Hidden) -> Hidden:
        """The state after ``x`` ``[R, T]``; where there is a ``y``, its loss is kept."""
        for i in range(0, x.shape[1], chunk):
            logits, hidden = model(x[:, i : i + chunk].to(device), hidden)
            if y is not None:
                target = y[:, i : i + chunk].to(device).long().flatten()
                losses.append(F.cross_entropy(logits.float(), target, reduction="sum"))
        return hidden

    with eval_mode(model), torch.autocast(device.type, dtype, enabled=rounded):
        x, contexts = rows_with_context(ids[:-1], n_rows)
        hidden = model.init_hidden(n_rows - 1)
        if n_rows > 1:
            hidden = read(contexts, None, hidden)
        hidden = read(x, ids[1 : x.numel() + 1].reshape(x.shape), first_from_zeros(hidden))
        rest = ids[x.numel() :]  # the last row reads on
        last = map_hidden(lambda state: state[:, -1:].contiguous(), hidden)
        read(rest[None, :-1], rest[None, 1:], last)
    return math.fsum(torch.stack(losses).tolist()) / (len(ids) - 1)
