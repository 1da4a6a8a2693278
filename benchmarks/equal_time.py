"""Held-out loss after the same wall-clock seconds: our laptop preset against the notebook's."""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import machine, table
from benchmarks.notebook_baseline import NotebookRNN, train_steps
from charrnn import CharRNN, evaluate
from charrnn.corpus import load_corpus
from charrnn.data import split_text
from charrnn.device import pick_device

ROOT = Path(__file__).parent.parent


def ours(data: str, seconds: float, device: str, flags: list[str]) -> float:
    """Train with train.py; its evaluations count as time. Returns nats per character."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "train.py", "--data", data, "--device", device]
        command += ["--preset", "laptop", "--minutes", str(seconds / 60), *flags]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        lines = Path(folder, "rnn.jsonl").read_text().splitlines()
    return min(json.loads(line)["val_loss"] for line in lines)


def theirs(data: str, seconds: float, device: torch.device) -> tuple[float, int]:
    """Train the notebook's recipe at 256 x 2: (nats per character, steps)."""
    corpus = load_corpus([data])
    train, held_out = split_text(corpus.ids, 0.1)
    tokens = corpus.vocabulary.tokens
    torch.manual_seed(1)
    model = NotebookRNN(len(tokens), 256, 2).to(device)
    batch = (128, 256) if len(train) >= 128 * 257 else (16, 64)
    began, n_steps = time.perf_counter(), 0
    for _ in train_steps(model, np.asarray(train), *batch, device):
        n_steps += 1
        if time.perf_counter() - began >= seconds:
            break
    judged = CharRNN(tokens, 256, 2)
    judged.load_state_dict(model.state_dict())
    return evaluate(judged.to(device), held_out), n_steps


def main() -> None:
    """Parse the command line and print the table."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=float, default=100)
    p.add_argument("--data", default="../shared/data/anna.txt")
    p.add_argument("--device", default="cpu")
    p.add_argument("--repeats", type=int, default=2)
    args, flags = p.parse_known_args()
    data = args.data if args.data == "python-docs" else str(Path(args.data).resolve())
    device = pick_device(args.device)
    print(f"{machine(device)}\n{args.seconds:g} seconds on {Path(data).name}\n")
    rows = [["run", "notebook 256 x 2", "its steps", "ours", "lower by", "bits/char lower"]]
    for repeat in range(args.repeats):
        theirs_loss, n_steps = theirs(data, args.seconds, device)
        our_loss = ours(data, args.seconds, args.device, [*flags, "--seed", str(repeat + 1)])
        less = theirs_loss - our_loss
        row = [str(repeat + 1), f"{theirs_loss:.3f}", str(n_steps), f"{our_loss:.3f}"]
        rows.append([*row, f"{less:.3f}", f"{less / math.log(2):.3f}"])
    table(rows)


if __name__ == "__main__":
    main()
