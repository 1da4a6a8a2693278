"""Print milliseconds a training step while 0, 1 and 2 endless loops run on the same cores, for each
way in which OpenMP's threads can wait for each other. Run ``python -m benchmarks.busy``."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.common import (
    OPENMP_DEFAULT,
    alternate,
    in_a_process,
    machine,
    make_text,
    spread,
    table,
)
from charrnn.system.cli import Parser, command

WAYS = {
    "OpenMP's default": OPENMP_DEFAULT,
    "GOMP_SPINCOUNT=1000 (ours)": {"GOMP_SPINCOUNT": "1000"},
    # ours would be set else, and be stronger than the policy
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


@contextmanager
def busy(n_loops: int) -> Iterator[list[subprocess.Popen]]:
    """Run this many endless loops while the context lasts."""
    loop = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(loop) for _ in range(n_loops)]
    try:
        yield loops
    finally:
        for process in loops:
            process.kill()
            process.wait()


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    p = Parser(__doc__)
    p.add_argument("--cores", type=int, default=2, help="that loops and training share (Linux)")
    p.add_argument("--loops", type=int, nargs="+", default=(0, 1, 2), help="beside the training")
    p.add_argument("--size", default="512x1", help="units x layers")
    p.add_argument("--batch", type=int, nargs=2, default=(16, 64), metavar=("ROWS", "LENGTH"))
    p.add_argument("--dtype", default="auto", help="of the step's products")
    p.add_argument("--seconds", type=float, default=5, help="of each turn")
    p.add_argument("--repeats", type=int, default=5, help="turns of each way")
    args = p.parse_args(argv)
    if hasattr(os, "sched_setaffinity"):  # the processes started here inherit it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    threads = {"OMP_NUM_THREADS": str(args.cores)}
    chars = args.batch[0] * args.batch[1]
    print(f"{machine(torch.device('cpu'))}\n{args.size}, batches of {args.batch[0]} x ", end="")
    print(f"{args.batch[1]}; ms a step: median (lowest-highest)\n", flush=True)
    rows = [["OpenMP", *(f"{n} loops beside" for n in args.loops)], *([way] for way in WAYS)]
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--data", make_text(folder, 200_000), "--device", "cpu", "--sizes", args.size]
        flags += ["--dtype", args.dtype, "--seconds", str(args.seconds)]
        flags += ["--batch", *map(str, args.batch)]
        turns = {
            way: in_a_process("training_speed", "ours", *flags, env=threads | env)
            for way, env in WAYS.items()
        }
        for n_loops in args.loops:
            with busy(n_loops):
                rates = alternate(turns, args.repeats)
            for row in rows[1:]:
                row.append(spread([1000 * chars / rate for rate in rates[row[0]]]))
    table(rows)


if __name__ == "__main__":
    sys.exit(main())
