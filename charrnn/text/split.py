"""Split a text into the part to train on and the part that is held out."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from charrnn.errors import UserError
from charrnn.system.console import brief

MOST_PAIRED = 300  # distinct characters whose pairs are counted
MOST_LINES = 1 << 26  # characters of a text whose lines or other parts are chosen, in memory
PARTS = ("lines", "paragraphs", "files")  # the values of --val-split other than "end"


def split_text(
    ids: Tensor,
    val_frac: float,
    tokens: tuple[str, ...] = (),
    val_split: str = "end",
    seed: int = 0,
    file_ends: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Return (training ids, held-out ids) of a text with these ``tokens``, in files that end at
    ``file_ends``.

    With ``val_split`` "end" the last ``val_frac`` of the text is held out. With "lines",
    "paragraphs" or "files" it is some of these from all over the text, chosen by ``seed``: at most
    ``val_frac`` of the text, but at least one of them.

    Raises UserError where either part would have fewer than the 2 characters that a prediction
    needs, and for lines, paragraphs and files of more than ``MOST_LINES`` characters.
    """
    n_val = round(len(ids) * val_frac)
    if n_val < 2 or len(ids) - n_val < 2:
        raise UserError(
            f"--val-frac {val_frac}: of {len(ids)} characters it holds out {n_val}, and both parts "
            "need at least 2; change --val-frac or give a longer text"
        )
    if val_split == "end":
        return ids[:-n_val], ids[-n_val:]
    if val_split not in PARTS:  # a checkpoint may say anything
        raise UserError(f"--val-split: no such way to hold out a text: {brief(val_split)}")
    if len(ids) > MOST_LINES:
        raise UserError(
            f"--val-split {val_split}: {len(ids):,} characters are more than the {MOST_LINES:,} "
            f"whose {val_split} fit into memory; use --val-split end"
        )
    ends = _part_ends(ids, tokens, val_split, file_ends)
    lengths = ends.diff(prepend=torch.tensor([0]))
    held_out = choose_parts(lengths, n_val, val_split, seed).repeat_interleave(lengths)
    if min(int(held_out.sum()), int((~held_out).sum())) < 2:
        raise UserError(
            f"--val-split {val_split}: the text has too few {val_split}; use --val-split end"
        )
    return ids[~held_out], ids[held_out]


def choose_parts(lengths: Tensor, n_val: int, val_split: str, seed: int) -> Tensor:
    """Return which parts of a text, of these lengths, are held out ``[n_parts]`` bool: together at
    most ``n_val`` characters long, or the shortest one."""
    most = max(n_val, int(lengths.min()))
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    if val_split != "lines":  # which are chosen as in earlier versions: up to the first long one
        order = order[lengths[order] <= most]
    chosen = torch.zeros(len(lengths), dtype=torch.bool)
    chosen[order[lengths[order].cumsum(0) <= most]] = True
    return chosen


def _part_ends(
    ids: Tensor, tokens: tuple[str, ...], val_split: str, file_ends: Sequence[int]
) -> Tensor:
    """Return where the lines, paragraphs or files of a text end ``[n_parts]``."""
    if val_split == "files":
        return torch.tensor(file_ends or [len(ids)])
    ends = torch.tensor([len(ids)])  # the last line may have no line end
    if "\n" in tokens:
        ends = torch.cat(((ids == tokens.index("\n")).nonzero().flatten() + 1, ends)).unique()
        if val_split == "paragraphs":
            last = ends[_ends_paragraph(ids.numpy(), ends.numpy(), tokens)]
            ends = torch.cat((last, ends[-1:], torch.tensor(file_ends, dtype=torch.long))).unique()
    return ends


def _ends_paragraph(ids: np.ndarray, ends: np.ndarray, tokens: tuple[str, ...]) -> Tensor:
    """Return which lines are the last before a paragraph begins ``[n_lines]`` bool. Paragraphs are
    separated by blank lines, by lines of three or more of one sign (=====), and by %.

    ``ends`` are the ends of the lines in ``ids``.
    """
    starts = np.append(0, ends[:-1])
    first = np.array(tokens)[ids[starts]]
    # a line of one sign differs from what stands before it in two places: at its start and its end
    differs = np.append(True, ids[1:] != ids[:-1])
    is_uniform = np.add.reduceat(differs, starts, dtype=np.int64) == 2
    lengths = ends - starts - 1  # without the line end
    is_sign = np.array([not (t.isalnum() or t.isspace()) for t in tokens])[ids[starts]]
    is_rule = is_uniform & ((is_sign & (lengths >= 3)) | ((first == "%") & (lengths == 1)))
    separates = is_rule | (first == "\n")
    separates[:-1] &= ~separates[1:]
    return torch.from_numpy(separates)


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
