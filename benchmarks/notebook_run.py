"""Print what the notebook's recipe learns, epoch by epoch.

Run ``python -m benchmarks.notebook_run --n-hidden 256 --epochs 15``.

Its held-out loss can be far above its training loss: it never resets its hidden state, so its model
has not learned to start from zeros. So each row has the epoch's mean training loss, and the
held-out loss of 64 rows read twice: from zeros, as a prime or an evaluation starts, and from the
states that training carries in its rows. The last lines are a sample from zeros.
"""

import math
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import find_text, machine, table, wait
from benchmarks.notebook_baseline import (
    NotebookRNN,
    Windows,
    as_char_rnn,
    sample_ids,
    train_steps,
)
from charrnn.network.device import pick_device
from charrnn.network.evaluation import evaluate
from charrnn.network.model import Hidden
from charrnn.system.cli import Parser, command
from charrnn.text.corpus import Corpus, load_corpus
from charrnn.text.split import split_text

ROWS, LENGTH = 128, 256  # the notebook's batches
READ, SKIPPED = (
    64,
    1000,
)  # rows of the held-out text, and characters of each that only set the state


class Epoch(NamedTuple):
    """Losses in nats per character; seconds of all steps so far, without the evaluations."""

    number: int
    seconds: float
    train_loss: float
    held_out: float  # by ``evaluate``, which reads each row from zeros
    from_zeros: float
    from_carried: float


@torch.no_grad()
def loss_from(model: NotebookRNN, ids: Tensor, hidden: Hidden) -> float:
    """Return nats per character of ``ids``, cut into as many rows as ``hidden`` has.

    The first ``SKIPPED`` characters of each row are not scored, so that the state in which a row
    starts does not matter to a sound model.
    """
    n_rows, device = hidden[0].shape[1], hidden[0].device
    width = len(ids) // n_rows
    rows = ids[: n_rows * width].view(n_rows, width).long().to(device)
    skipped, losses = min(SKIPPED, width // 2), []
    model.eval()
    for i in range(0, width - 1, 64):
        x, y = rows[:, i : min(i + 64, width - 1)], rows[:, i + 1 : i + 65]
        one_hot = torch.nn.functional.one_hot(x, model.n_tokens).float()
        logits, hidden = model(one_hot, hidden)
        scored = torch.nn.functional.cross_entropy(logits, y.flatten(), reduction="none")
        losses.append(scored.view(n_rows, -1)[:, max(0, skipped - i) :].flatten())
    model.train()
    return torch.cat(losses).mean().item()


def epochs_of(
    model: NotebookRNN, corpus: Corpus, device: torch.device, val_frac: float
) -> Iterator[Epoch]:
    """Train as the notebook does, without end; yield the figures after each epoch."""
    train_ids, held_out = split_text(corpus.ids, val_frac)
    ids = np.asarray(train_ids)
    per_epoch = len(list(Windows(ids, ROWS, LENGTH)))
    steps, seconds, number = train_steps(model, ids, ROWS, LENGTH, device), 0.0, 0
    while True:
        wait(device)
        began = time.perf_counter()
        losses = []
        for loss, state in islice(steps, per_epoch):
            losses.append(loss)
            hidden = state
        wait(device)
        seconds, number = seconds + time.perf_counter() - began, number + 1
        carried = tuple(state[:, :READ].contiguous() for state in hidden)
        zeros = tuple(map(torch.zeros_like, carried))
        yield Epoch(
            number,
            seconds,
            mean(losses),
            evaluate(as_char_rnn(model, corpus.vocabulary.tokens), held_out),
            loss_from(model, held_out, zeros),
            loss_from(model, held_out, carried),
        )


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line, train, and print a row for each epoch."""
    p = Parser(__doc__)
    p.add_argument("--data", help="default: Anna Karenina, or a made-up text as long")
    p.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    p.add_argument("--n-hidden", type=int, default=256, help="default: %(default)s; two layers")
    p.add_argument("--epochs", type=int, default=15, help="default: %(default)s")
    p.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    args = p.parse_args(argv)
    device = pick_device(args.device)
    print(machine(device), f"{args.n_hidden} x 2, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = load_corpus([find_text(args.data, folder)])
        torch.manual_seed(args.seed)
        model = NotebookRNN(len(corpus.vocabulary), args.n_hidden, 2).to(device)
        val_frac = min(0.1, 200_000 / len(corpus.ids))
        table([["epoch", "seconds", "training", "evaluate", "from zeros", "from carried states"]])
        for epoch in islice(epochs_of(model, corpus, device, val_frac), args.epochs):
            losses = (f"{loss:.4f}" for loss in epoch[2:])
            row = [str(epoch.number), f"{epoch.seconds:.0f}", *losses]
            print("| " + " | ".join(row) + " |", flush=True)
        newline = corpus.vocabulary.tokens.index("\n") if "\n" in corpus.vocabulary.tokens else 0
        drawn = islice(sample_ids(model, first=newline), 300)
        print(f"bits: {epoch.held_out / math.log(2):.4f}; a sample:\n")
        print(corpus.vocabulary.decode(list(drawn)))


if __name__ == "__main__":
    sys.exit(main())
