"""Characters per second in sampling: ours against the notebook's ``sample``."""

import argparse
import statistics
from collections.abc import Callable
from itertools import islice

import torch

from benchmarks.common import alternate, machine, rate, ratios, read_bandwidth, spread, table
from benchmarks.notebook_baseline import NotebookRNN, sample_ids
from charrnn import CharRNN
from charrnn.device import pick_device
from charrnn.generation import generate

TOKENS = tuple(map(chr, range(40, 123)))  # 83, as in Anna Karenina
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BLOCK = 16


def our_turn(
    model: CharRNN, streams: int, dtype: torch.dtype, seconds: float
) -> Callable[[], float]:
    """A turn that returns characters per second in all streams."""
    steps = generate(model, "A", streams, top_k=5, dtype=dtype)

    def block() -> int:
        torch.stack(list(islice(steps, BLOCK))).cpu()
        return BLOCK * streams

    return lambda: rate(block, seconds, model.fc.weight.device)


def main() -> None:
    """Parse the command line and print the table."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="auto")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1)
    p.add_argument("--sizes", type=int, nargs="+", default=(128, 512, 1024))
    p.add_argument("--streams", type=int, nargs="+", default=(1, 8, 64))
    args = p.parse_args()
    device = pick_device(args.device)
    bandwidth = read_bandwidth(device)
    print(f"{machine(device)}\nread bandwidth {bandwidth / 1e9:,.1f} GB/s")
    print("2 layers, top-k 5; chars/s in all streams: median (lowest-highest)\n")
    rows = [["model", "streams", "weights", "notebook, 1 stream", "ours", "ratio", "GB/s"]]
    for n_hidden in args.sizes:
        theirs = sample_ids(NotebookRNN(len(TOKENS), n_hidden, 2).to(device))

        def draw(theirs: object = theirs) -> int:
            return len(list(islice(theirs, BLOCK)))

        model = CharRNN(TOKENS, n_hidden, 2).to(device).eval()
        sides = {"theirs": lambda draw=draw: rate(draw, args.seconds, device)}
        for streams in args.streams:
            for name, dtype in DTYPES.items():
                sides[f"{streams} {name}"] = our_turn(model, streams, dtype, args.seconds)
        rates = alternate(sides, args.repeats)
        for side in list(sides)[1:]:
            streams, name = side.split()
            read = (12 * n_hidden**2 + n_hidden * len(TOKENS)) * DTYPES[name].itemsize
            gigabytes = statistics.median(rates[side]) / int(streams) * read / 1e9
            row = [f"{n_hidden} x 2", streams, name, spread(rates["theirs"]), spread(rates[side])]
            rows.append([*row, ratios(rates[side], rates["theirs"]), f"{gigabytes:.1f}"])
    table(rows)


if __name__ == "__main__":
    main()
