"""Split a text into the part to train on and the part that is held out."""

import torch
from torch import Tensor

from charrnn.errors import UserError

MOST_PAIRED = 300  # distinct characters whose pairs are counted
MOST_LINES = 1 << 26  # characters of a text that is split by lines, in memory


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
    """Return the cost in nats of each character after each other, ``[n_tokens, n_tokens]``, in a
    bigram model of the ids ``rows`` ``[R, T]``."""
    pairs = (rows[:, :-1].long() * n_tokens + rows[:, 1:]).flatten()
    counts = pairs.bincount(minlength=n_tokens**2).view(n_tokens, -1) + 0.1
    return -(counts / counts.sum(1, keepdim=True)).log()


def unlikeness(train_ids: Tensor, val_ids: Tensor, n_tokens: int) -> float:
    """Return how many nats per character more the held-out text costs than the training text, in
    a bigram model.

    The model is counted on every other piece of 500 characters of the training text, and compared
    on the held-out text and on the remaining pieces. 0 where there are too many distinct characters
    or too few characters to count.
    """
    pieces = train_ids[: len(train_ids) // 1000 * 1000].view(-1, 2, 500)
    if n_tokens > MOST_PAIRED or len(pieces) < 5:
        return 0.0
    counted, between = pieces[:: len(pieces) // 2000 + 1].long().unbind(1)
    costs = pair_costs(counted, n_tokens)
    held_out = val_ids[:500_000].long()
    seen = costs[between[:, :-1], between[:, 1:]].mean()
    return (costs[held_out[:-1], held_out[1:]].mean() - seen).item()
