"""Characters per second in training: ours against the notebook's loop, same model, same batches."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import alternate, machine, matmul_peak, rate, ratios, spread, table
from benchmarks.notebook_baseline import NotebookRNN, train_steps
from charrnn.corpus import Corpus, load_corpus
from charrnn.data import get_batches
from charrnn.device import pick_device, pick_dtype
from charrnn.model import detach
from charrnn.settings import fill_in
from charrnn.training import READ_EVERY, Run, learning_rate, train_step

SIZES = ((256, 1), (512, 2), (1024, 2))


def our_steps(corpus: Corpus, folder: Path, **flags: object) -> Iterator[None]:
    """One training step at a time, as ``learn`` takes them."""
    names = ("data", "prime", "init_from", "val_frac", "minutes")
    flags = {**dict.fromkeys(names), "preset": "accelerator", "epochs": 10**6, "seed": 1, **flags}
    flags |= {"ckpt": str(folder / "rnn.net"), "cell": "lstm", "min_count": 1}
    run = Run(fill_in(flags, False, len(corpus.ids)), corpus)
    while True:
        sizes = run.settings.batch_size, run.settings.seq_length
        for x, y in get_batches(run.train_ids, *sizes):
            run.optimizer.param_groups[0]["lr"] = learning_rate(run)
            loss, run.hidden = train_step(run, x, y, detach(run.hidden))
            run.progress.step += 1
            if run.progress.step % READ_EVERY == 0:
                loss.item()
            yield


def child(side: str, args: argparse.Namespace) -> None:
    """Train a side at the first size; for each line on stdin print characters per second."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, device = load_corpus([args.data]), pick_device(args.device)
        n_hidden, n_layers = map(int, args.sizes[0].split("x"))
        rows, length = (16, 64) if side == "small" else args.batch
        if side == "theirs":
            model = NotebookRNN(len(corpus.vocabulary), n_hidden, n_layers).to(device)
            steps = train_steps(model, np.asarray(corpus.ids), rows, length, device)
        else:
            flags = {"n_hidden": n_hidden, "n_layers": n_layers, "drop_prob": 0.5}
            flags |= {"device": args.device, "dtype": args.dtype}
            steps = our_steps(corpus, Path(folder), batch_size=rows, seq_length=length, **flags)
        # on a GPU a step is not waited for one by one: neither loop does
        together = 10 if device.type == "cuda" else 1

        def work() -> int:
            for _ in range(together):
                next(steps)
            return together * rows * length

        for _ in sys.stdin:
            print(rate(work, args.seconds, device), flush=True)


def start(side: str, size: str, args: argparse.Namespace) -> subprocess.Popen:
    """A process for one side, since ours changes how malloc works for the whole process."""
    command = [sys.executable, "-m", "benchmarks.training_speed", "--child", side, "--sizes", size]
    command += ["--device", args.device, "--dtype", args.dtype, "--data", args.data]
    command += ["--seconds", str(args.seconds), "--batch", *map(str, args.batch)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def turn(process: subprocess.Popen) -> float:
    """Let it train for a while: characters per second."""
    print(file=process.stdin, flush=True)
    return float(process.stdout.readline())


def main() -> None:
    """Parse the command line and print the table."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="auto")
    p.add_argument("--dtype", default="auto")
    p.add_argument("--data", default="python-docs")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--batch", type=int, nargs=2, default=(128, 256), metavar=("ROWS", "LENGTH"))
    p.add_argument("--sizes", nargs="+", default=[f"{h}x{n}" for h, n in SIZES])
    p.add_argument("--child", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        child(args.child, args)
        return
    device = pick_device(args.device)
    dtype = pick_dtype(args.dtype, device)
    peak = matmul_peak(device, dtype)
    print(f"{machine(device)}\n{dtype} matmul peak {peak / 1e9:,.0f} GFLOP/s")
    print(f"batches of {args.batch[0]} x {args.batch[1]}; chars/s: median (lowest-highest)\n")
    tokens = len(load_corpus([args.data]).vocabulary)
    rows = [["model", "notebook", "ours", "ratio", "of the peak", "ours at 16 x 64"]]
    for size in args.sizes:
        n_hidden, n_layers = map(int, size.split("x"))
        # 6 FLOP per weight and character: one product forward, two backward
        weights = 4 * n_hidden**2 * (2 * n_layers - 1) + n_hidden * tokens
        sides = {side: start(side, size, args) for side in ("theirs", "ours", "small")}
        turns = {side: partial(turn, process) for side, process in sides.items()}
        rates = alternate(turns, args.repeats)
        for process in sides.values():
            process.communicate()  # it ends with its stdin
        achieved = sorted(rates["ours"])[len(rates["ours"]) // 2] * 6 * weights / peak
        row = [f"{n_hidden} x {n_layers}", spread(rates["theirs"]), spread(rates["ours"])]
        row += [ratios(rates["ours"], rates["theirs"]), f"{achieved:.0%}", spread(rates["small"])]
        rows.append(row)
    table(rows)


if __name__ == "__main__":
    main()
