"""Print the held-out loss after the same number of seconds: our laptop preset and the notebook's
recipe. Run ``python -m benchmarks.equal_time``."""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import ROOT, find_text, machine, table
from benchmarks.notebook_baseline import NotebookRNN, held_out_loss, train_steps
from charrnn.errors import UserError
from charrnn.network.device import pick_device
from charrnn.system.cli import Parser, command
from charrnn.text.corpus import Corpus, load_corpus
from charrnn.text.split import split_text


def ours(*flags: str) -> list[dict[str, Any]]:
    """Train with train.py and these flags; return the lines of its log. The last has the run's
    loss. Raises UserError if train.py fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *flags]
        if subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL).returncode:
            raise UserError(f"train.py {' '.join(flags)} failed")
        lines = Path(folder, "rnn.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def theirs(
    corpus: Corpus, val_frac: float, seconds: float, device: torch.device
) -> tuple[float, int]:
    """Train the notebook's recipe at 256 x 2; return its held-out loss in nats per character, and
    its number of steps."""
    train_ids, held_out = split_text(corpus.ids, val_frac)
    tokens = corpus.vocabulary.tokens
    torch.manual_seed(1)
    model = NotebookRNN(len(tokens), 256, 2).to(device)
    batch = (128, 256) if len(train_ids) >= 128 * 257 else (16, 64)
    began, n_steps = time.perf_counter(), 0
    for _ in train_steps(model, np.asarray(train_ids), *batch, device):
        n_steps += 1
        if time.perf_counter() - began >= seconds:
            break
    return held_out_loss(model, tokens, held_out), n_steps


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    p = Parser(f"{__doc__} Other flags go to train.py.")
    p.add_argument("--seconds", type=float, default=100, help="of training; ours evaluates in it")
    p.add_argument("--data", help="default: Anna Karenina, or a made-up text as long")
    p.add_argument("--device", default="cpu", help="of both sides")
    p.add_argument("--repeats", type=int, default=2, help="turns of each side")
    args, more = p.parse_known_args(argv)
    device = pick_device(args.device)
    print(f"{machine(device)}\n{args.seconds:g} seconds\n")
    rows = [["run", "notebook 256 x 2", "its steps", "ours", "lower by", "bits/char lower"]]
    with tempfile.TemporaryDirectory() as folder:
        data = find_text(args.data, folder)
        flags = ["--data", data, "--device", args.device, "--preset", "laptop"]
        flags += ["--minutes", str(args.seconds / 60), *more]
        for run in range(1, args.repeats + 1):
            log = ours(*flags, "--seed", str(run))
            val_frac, our_loss = log[0]["val_frac"], log[-1]["val_loss"]
            their_loss, n_steps = theirs(load_corpus([data]), val_frac, args.seconds, device)
            less = their_loss - our_loss
            row = [str(run), f"{their_loss:.3f}", str(n_steps), f"{our_loss:.3f}"]
            rows.append([*row, f"{less:.3f}", f"{less / math.log(2):.3f}"])
    table(rows)


if __name__ == "__main__":
    sys.exit(main())
