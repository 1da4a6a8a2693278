"""Print characters per second in training: the notebook's loop and ours, with the same model and
batches, and their ratio. Run ``python -m benchmarks.training_speed``.

"of the peak" is the speed of our products as a share of that of square ones.
"""

import argparse
import statistics
import sys
import tempfile
from itertools import islice

import numpy as np

from benchmarks.common import (
    OPENMP_DEFAULT,
    alternate,
    flop_per_char,
    in_a_process,
    machine,
    make_text,
    matmul_peak,
    rate,
    ratios,
    spread,
    table,
)
from benchmarks.notebook_baseline import NotebookRNN, train_steps
from benchmarks.ours import train_rate
from charrnn.network.device import pick_device, pick_dtype
from charrnn.system.cli import Parser, command
from charrnn.text.corpus import load_corpus

SIZES = ("256x1", "512x2", "1024x2")


def child(side: str, args: argparse.Namespace) -> float:
    """Train one side at the first size; return characters per second, without the first steps."""
    device = pick_device(args.device)
    n_hidden, n_layers = map(int, args.sizes[0].split("x"))
    rows, length = (16, 64) if side == "small" else args.batch
    if side != "theirs":
        model = {"n_hidden": n_hidden, "n_layers": n_layers, "drop_prob": 0.5}
        text = {"data": [args.data], "dtype": args.dtype}
        return train_rate(args.seconds, device, rows, length, **model, **text)
    corpus = load_corpus([args.data])
    model = NotebookRNN(len(corpus.vocabulary), n_hidden, n_layers).to(device)
    steps = train_steps(model, np.asarray(corpus.ids), rows, length, device)

    def work() -> int:
        next(steps)  # which reads the loss, and so waits for the device
        return rows * length

    list(islice(steps, 5))
    return rate(work, args.seconds, device)


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    p = Parser(__doc__)
    p.add_argument("--device", default="auto", help="of both sides")
    p.add_argument("--dtype", default="auto", help="of our products; the notebook's are float32")
    p.add_argument("--data", help="default: a made-up text, as long as Anna Karenina")
    p.add_argument("--repeats", type=int, default=5, help="turns of each side")
    p.add_argument("--seconds", type=float, default=5, help="of each turn")
    p.add_argument("--batch", type=int, nargs=2, default=(128, 256), metavar=("ROWS", "LENGTH"))
    p.add_argument("--sizes", nargs="+", default=SIZES, help="units x layers")
    p.add_argument("--child", help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    if args.child:
        print(child(args.child, args))
        return
    device = pick_device(args.device)
    dtype = pick_dtype(args.dtype, device)
    with tempfile.TemporaryDirectory() as folder:
        args.data = args.data or make_text(folder)
        n_tokens = len(load_corpus([args.data]).vocabulary)
        peak = matmul_peak(device, dtype)
        print(f"{machine(device)}\n{dtype} matmul peak {peak / 1e9:,.0f} GFLOP/s")
        print(f"batches of {args.batch[0]} x {args.batch[1]}; chars/s: median (lowest-highest)\n")
        rows = [["model", "notebook", "ours", "ratio", "of the peak", "ours at 16 x 64"]]
        rows += [row(size, args, n_tokens, peak) for size in args.sizes]
    table(rows)


def row(size: str, args: argparse.Namespace, n_tokens: int, peak: float) -> list[str]:
    """Return the table's row for a model of this size."""
    n_hidden, n_layers = map(int, size.split("x"))
    flags = ["--sizes", size, "--device", args.device, "--dtype", args.dtype]
    flags += ["--data", args.data, "--seconds", str(args.seconds)]
    flags += ["--batch", *map(str, args.batch)]
    # ours changes how malloc works, for the whole process
    turns = {
        "theirs": in_a_process("training_speed", "theirs", *flags, env=OPENMP_DEFAULT),
        "ours": in_a_process("training_speed", "ours", *flags),
        "small": in_a_process("training_speed", "small", *flags),
    }
    rates = alternate(turns, args.repeats)
    flop = flop_per_char(n_hidden, n_layers, n_tokens)
    achieved = statistics.median(rates["ours"]) * flop / peak
    cells = [f"{n_hidden} x {n_layers}", spread(rates["theirs"]), spread(rates["ours"])]
    cells.append(ratios(rates["ours"], rates["theirs"]))
    return [*cells, f"{achieved:.0%}", spread(rates["small"])]


if __name__ == "__main__":
    sys.exit(main())
