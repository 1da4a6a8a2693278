"""Print characters per second in sampling: the notebook's ``sample`` and ours, with their ratio,
for 1, 8 and 64 texts at a time. Run ``python -m benchmarks.sampling_speed``."""

import argparse
import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path

import torch

from benchmarks.common import (
    OPENMP_DEFAULT,
    alternate,
    in_a_process,
    machine,
    rate,
    ratios,
    read_bandwidth,
    spread,
    table,
)
from benchmarks.notebook_baseline import NotebookRNN, sample_ids
from charrnn import CharRNN, load_checkpoint, save_checkpoint
from charrnn.network.device import pick_device
from charrnn.system.cli import Parser, command
from charrnn.writing.generation import generate

TOKENS = tuple(map(chr, range(40, 123)))  # 83, as in Anna Karenina
BLOCK = 16


def child(side: str, path: str, seconds: float, device: torch.device) -> float:
    """Load a checkpoint as a user would and sample from it; return characters per second."""
    if side == "notebook":
        checkpoint = torch.load(path)
        model = NotebookRNN(len(TOKENS), checkpoint["n_hidden"], checkpoint["n_layers"])
        model.load_state_dict(checkpoint["state_dict"])
        chars = sample_ids(model.to(device))
        return rate(lambda: len(list(islice(chars, BLOCK))), seconds, device)
    streams, dtype = side.split()
    model = load_checkpoint(path, device)
    numbers = range(1, int(streams) + 1)
    steps = generate(model, "A", numbers, top_k=5, dtype=getattr(torch, dtype))

    def block() -> int:
        torch.stack(list(islice(steps, BLOCK))).cpu()
        return BLOCK * int(streams)

    block()
    return rate(block, seconds, device)


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    p = Parser(__doc__)
    p.add_argument("--device", default="auto", help="of both sides")
    p.add_argument("--repeats", type=int, default=5, help="turns of each side")
    p.add_argument("--seconds", type=float, default=1, help="of each turn")
    p.add_argument("--sizes", type=int, nargs="+", default=(128, 512, 1024), help="units")
    p.add_argument("--streams", type=int, nargs="+", default=(1, 8, 64), help="texts at a time")
    p.add_argument("--child", help=argparse.SUPPRESS)
    p.add_argument("--ckpt", help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    device = pick_device(args.device)
    if args.child:
        print(child(args.child, args.ckpt, args.seconds, device))
        return
    dtypes = ("float32", "float16" if device.type == "cuda" else "bfloat16")
    bandwidth = read_bandwidth(device)
    print(f"{machine(device)}\nread bandwidth {bandwidth / 1e9:,.1f} GB/s")
    print("2 layers, top-k 5; chars/s in all streams: median (lowest-highest)\n")
    rows = [["model", "streams", "weights", "notebook, 1 stream", "ours", "ratio", "GB/s"]]
    for n_hidden in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "rnn.net"))
            save_checkpoint(path, CharRNN(TOKENS, n_hidden, 2))
            sides = [f"{streams} {dtype}" for streams in args.streams for dtype in dtypes]
            # how fast the notebook's sampler is depends on what its process allocated before:
            # each step packs all weights into fresh memory
            flags = ["--ckpt", path, "--device", args.device, "--seconds", str(args.seconds)]
            turns = {side: in_a_process("sampling_speed", side, *flags) for side in sides}
            notebook = in_a_process("sampling_speed", "notebook", *flags, env=OPENMP_DEFAULT)
            rates = alternate({"notebook": notebook, **turns}, args.repeats)
        for side in sides:
            streams, dtype = side.split()
            read = (12 * n_hidden**2 + n_hidden * len(TOKENS)) * getattr(torch, dtype).itemsize
            gigabytes = statistics.median(rates[side]) / int(streams) * read / 1e9
            row = [f"{n_hidden} x 2", streams, dtype, spread(rates["notebook"])]
            row += [spread(rates[side]), ratios(rates[side], rates["notebook"])]
            rows.append([*row, f"{gigabytes:.1f}"])
    table(rows)


if __name__ == "__main__":
    sys.exit(main())
