"""Print the peak memory of three training steps, the notebook's and ours, beyond what importing
torch takes. Run ``python -m benchmarks.memory``.

With ``--text FILE`` it is the peak of train.py on that text, which may be of any length.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import ROOT, in_a_process, machine, table
from benchmarks.notebook_baseline import NotebookRNN, train_steps
from benchmarks.ours import Enough, watch
from charrnn.errors import UserError
from charrnn.network.device import pick_device
from charrnn.system.cli import Parser, command
from charrnn.text.corpus import load_corpus


def child(side: str, device: torch.device, n_hidden: int, n_layers: int) -> None:
    """Train for three steps of 128 x 256 and print the peak in MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if side == "ours":
        size = {"n_hidden": n_hidden, "n_layers": n_layers, "batch_size": 128, "seq_length": 256}
        watch(stop_after(3), data=["python-docs"], device=str(device), drop_prob=0.5, **size)
    else:
        corpus = load_corpus(["python-docs"])
        model = NotebookRNN(len(corpus.vocabulary), n_hidden, n_layers).to(device)
        list(islice(train_steps(model, np.asarray(corpus.ids), 128, 256, device), 3))
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated(device) / 2**20)
    else:
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)


def stop_after(n_steps: int) -> Callable[[int], None]:
    """Return a ``before_step`` for ``watch`` that ends the run after this many steps."""

    def before_step(n: int) -> None:
        if n == n_steps:
            raise Enough(None)

    return before_step


def peak(arguments: list[str]) -> float:
    """Run a command; return the most memory in MiB that it took, with the files that it maps.
    Raises UserError if it fails."""
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise UserError(f"{' '.join(arguments[1:])} failed")
    return usage.ru_maxrss / 2**10


def of_text(text: str, device: str, flags: list[str]) -> None:
    """Print the table for train.py on a text: the first run encodes it, the second maps the
    result."""
    rows = [["run", "text", "peak", "beyond importing torch"]]
    torch_alone = peak([sys.executable, "-c", "import torch"])
    with tempfile.TemporaryDirectory() as folder:
        train = [sys.executable, "train.py", "--data", text, "--ckpt", f"{folder}/rnn.net"]
        for run in ("first", "second"):
            most = peak([*train, "--device", device, *flags])
            size = f"{Path(text).stat().st_size / 1e6:,.0f} MB"
            rows.append([run, size, f"{most:,.0f} MiB", f"{most - torch_alone:,.0f} MiB"])
    table(rows)


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    p = Parser(f"{__doc__} Other flags then go to train.py.")
    p.add_argument("--device", default="auto", help="of both sides")
    p.add_argument(
        "--sizes", nargs="+", default=("256x1", "512x2", "1024x2"), help="units x layers"
    )
    p.add_argument("--child", help=argparse.SUPPRESS)
    p.add_argument("--text", metavar="FILE", help="a text of any length")
    args, flags = p.parse_known_args(argv)
    device = pick_device(args.device)
    if args.text:
        of_text(str(Path(args.text).resolve()), args.device, flags)
        return
    if args.child:
        child(args.child, device, *map(int, args.sizes[0].split("x")))
        return
    print(f"{machine(device)}\npeak MiB beyond importing torch, batches of 128 x 256\n")
    rows = [["model", "notebook", "ours", "ratio"]]
    for size in args.sizes:
        flags = ("--sizes", size, "--device", args.device)
        theirs, ours = (in_a_process("memory", side, *flags)() for side in ("notebook", "ours"))
        rows.append([size, f"{theirs:,.0f}", f"{ours:,.0f}", f"{ours / theirs:.2f}"])
    table(rows)


if __name__ == "__main__":
    sys.exit(main())
