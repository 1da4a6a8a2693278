"""Characters per second in training: ours against the notebook's loop, same model, same batches."""

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from charrnn.training import READ_EVERY, Run, learning_rate, train_step

from benchmarks.common import (
    alternate,
    in_a_process,
    machine,
    matmul_peak,
    rate,
    ratios,
    spread,
    table,
)
from benchmarks.notebook_baseline import NotebookRNN, train_steps
from charrnn.corpus import Corpus, load_corpus
from charrnn.data import get_batches
from charrnn.device import pick_device, pick_dtype
from charrnn.model import detach
from charrnn.settings import fill_in

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


def child(side: str, args: argparse.Namespace) -> float:
    """Train a side at the first size, after one step not counted: characters per second."""
    corpus, device = load_corpus([args.data]), pick_device(args.device)
    n_hidden, n_layers = map(int, args.sizes[0].split("x"))
    rows, length = (16, 64) if side == "small" else args.batch
    # on a GPU a step is not waited for one by one: neither loop does
    together = 10 if device.type == "cuda" else 1
    with tempfile.TemporaryDirectory() as folder:
        if side == "theirs":
            model = NotebookRNN(len(corpus.vocabulary), n_hidden, n_layers).to(device)
            steps = train_steps(model, np.asarray(corpus.ids), rows, length, device)
        else:
            flags = {"n_hidden": n_hidden, "n_layers": n_layers, "drop_prob": 0.5}
            flags |= {"device": args.device, "dtype": args.dtype}
            steps = our_steps(corpus, Path(folder), batch_size=rows, seq_length=length, **flags)

        def work() -> int:
            list(islice(steps, together))
            return together * rows * length

        work()
        return rate(work, args.seconds, device)


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
        print(child(args.child, args))
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
        flags = ["--sizes", size, "--device", args.device, "--dtype", args.dtype]
        flags += ["--data", args.data, "--seconds", str(args.seconds)]
        flags += ["--batch", *map(str, args.batch)]
        # ours changes how malloc works, for the whole process
        sides = ("theirs", "ours", "small")
        turns = {side: in_a_process("training_speed", side, *flags) for side in sides}
        rates = alternate(turns, args.repeats)
        achieved = sorted(rates["ours"])[len(rates["ours"]) // 2] * 6 * weights / peak
        row = [f"{n_hidden} x {n_layers}", spread(rates["theirs"]), spread(rates["ours"])]
        row += [ratios(rates["ours"], rates["theirs"]), f"{achieved:.0%}", spread(rates["small"])]
        rows.append(row)
    table(rows)


if __name__ == "__main__":
    main()
