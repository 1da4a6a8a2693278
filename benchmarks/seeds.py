"""Print how far apart the seeds of one recipe end, and whether their models know a cold start.

    python -m benchmarks.seeds --seeds 1 2 3 --steps 870

Each run is that of ``--minutes 2`` on a machine that makes this many steps of 512 x 1 in the time.
A model trained without cold starts can lose its way when it starts from zeros in the middle of a
text. It then has "less end to end" above 0: the loss by ``evaluate`` minus that of reading in one
row. "largest rise" is the largest one between two evaluations on the way, and "last on the way" the
last of these minus the loss on the whole. The last two columns are the loss of 40 characters from
the start of a line, after reading a line end only, and after 400 characters. All are in nats per
character.
"""

import argparse
import io
import os
import tempfile
from contextlib import redirect_stdout
from itertools import pairwise
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

import train
from benchmarks.common import find_text, machine, table
from charrnn.network.evaluation import evaluate
from charrnn.network.model import CharRNN
from charrnn.text.corpus import load_corpus
from charrnn.text.split import split_text
from charrnn.training.flags import parse_args
from charrnn.training.settings import Settings, relative_step_time, resolve_settings
from charrnn.training.state import Progress

MINUTES = 2.0
CONTEXT, SCORED = 400, 40  # characters read before a place, and scored after it
PLACES = 600
END_TO_END = 50_000  # characters


@torch.no_grad()
def end_to_end(model: CharRNN, ids: Tensor) -> float:
    """Return nats per character of ``ids[1:]``, read from the first to the last in one row."""
    hidden, losses = model.init_hidden(1), []
    for i in range(0, len(ids) - 1, 1000):
        y = ids[i + 1 : i + 1001].long()
        logits, hidden = model(ids[None, i : i + len(y)], hidden)
        losses.append(F.cross_entropy(logits, y, reduction="sum").item())
    return sum(losses) / (len(ids) - 1)


@torch.no_grad()
def after(model: CharRNN, ids: Tensor, starts: Tensor, n_read: int) -> float:
    """Return nats per character of the ``SCORED`` characters from each of ``starts`` on, after
    reading from zeros the ``n_read`` characters before it."""
    rows = torch.stack([ids[i - n_read : i + SCORED] for i in starts.tolist()]).long()
    logits, _ = model(rows[:, :-1], model.init_hidden(len(rows)))
    logits = logits.view(len(rows), -1, logits.shape[1])[:, n_read - 1 :]
    return F.cross_entropy(logits.flatten(0, 1), rows[:, n_read:].flatten()).item()


def line_starts(ids: Tensor, newline: int) -> Tensor:
    """Return up to ``PLACES`` places, spread evenly, where a line with some text starts."""
    begins = ((ids[:-1] == newline) & (ids[1:] != newline)).nonzero().flatten() + 1
    begins = begins[(begins >= CONTEXT) & (begins < len(ids) - SCORED)]
    return begins[:: len(begins) // PLACES + 1]


def train_by_steps(n_steps: int, **given: Any) -> train.Trained:
    """Train as ``--minutes 2`` does where that is time for ``n_steps`` steps of 512 x 1."""

    class BySteps(train.Budget):
        def fraction_done(self, progress: Progress) -> float:
            size = state["settings"].n_hidden, state["settings"].n_layers
            return min(1.0, progress.step * relative_step_time(*size) / n_steps)

    def step_time(n_hidden: int, n_layers: int, cell: str, batch_size: int, length: int) -> float:
        times = relative_step_time(n_hidden, n_layers) * batch_size * length / 2048
        return 60 * MINUTES / n_steps * times

    def resolve(*args: Any) -> Settings:
        state["settings"] = resolve_settings(*args[:-1], step_time)
        return state["settings"]

    state: dict[str, Settings] = {}
    with (
        mock.patch.object(train, "resolve_settings", resolve),
        mock.patch.object(train, "Budget", BySteps),
        redirect_stdout(io.StringIO()),
    ):
        return train.train(minutes=MINUTES, **given)


def run_seed(seed: int, flags: list[str], data: str, n_steps: int) -> list[str]:
    """Train once; return a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        ckpt = os.path.join(folder, "rnn.net")
        flags = [*flags, "--data", data, "--ckpt", ckpt, f"--seed={seed}"]
        run = train_by_steps(n_steps, **parse_args(flags))
    model, on_the_way = run.model.cpu(), [line["val_loss"] for line in run.log if "lr" in line]
    losses = [loss for loss in on_the_way if loss is not None]
    corpus = load_corpus([data])
    settings = run.log[0]["settings"]
    ids = split_text(corpus.ids, settings["val_frac"])[1]
    some = ids[:END_TO_END]
    gap = evaluate(model, some) - end_to_end(model, some)
    places = line_starts(ids, model.char2int["\n"])
    rise = max([b - a for a, b in pairwise(losses[:-1])], default=0.0)
    return [
        str(seed),
        f"{run.log[-2]['step']:,} of {settings['n_hidden']} x {settings['n_layers']}",
        f"{losses[-1]:.4f}",
        f"{gap:.4f}",
        f"{rise:+.3f}",
        f"{losses[-2] - losses[-1]:+.3f}",
        f"{after(model, ids, places, 1):.3f}",
        f"{after(model, ids, places, CONTEXT):.3f}",
    ]


def main() -> None:
    """Train each seed and print a table, then the median and the worst."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", help="a text (default: Anna Karenina, else a made-up one)")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--steps", type=int, default=870, help="of 512 x 1 (default: %(default)s)")
    p.add_argument("--train", nargs=argparse.REMAINDER, default=[], help="flags of train.py")
    args = p.parse_args()
    print(machine(torch.device("cpu")), " ".join(args.train))
    head = ["seed", "steps", "held out", "less end to end", "largest rise", "last on the way"]
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        data = find_text(args.data, folder)
        table([[*head, "line starts from a line end", "in their context"]])
        for seed in args.seeds:
            row = run_seed(seed, args.train, data, args.steps)
            print("| " + " | ".join(row) + " |", flush=True)
            losses.append(float(row[2]))
    print(f"median {median(losses):.4f}, worst {max(losses) - median(losses):+.4f} above it")


if __name__ == "__main__":
    main()
