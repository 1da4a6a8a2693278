"""Peak memory of a few training steps, or with --text of train.py on a text of any length, beyond
what importing torch takes."""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import in_a_process, machine, table
from benchmarks.notebook_baseline import NotebookRNN, train_steps
from benchmarks.training_speed import our_steps
from charrnn.corpus import load_corpus
from charrnn.device import pick_device


def child(side: str, device: torch.device, n_hidden: int, n_layers: int) -> None:
    """Train for three steps of 128 x 256 and print the peak in MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    corpus = load_corpus(["python-docs"])
    if side == "ours":
        with tempfile.TemporaryDirectory() as folder:
            flags = {"n_hidden": n_hidden, "n_layers": n_layers, "drop_prob": 0.5, "dtype": "auto"}
            flags |= {"device": str(device), "batch_size": 128, "seq_length": 256}
            list(islice(our_steps(corpus, Path(folder), **flags), 3))
    else:
        model = NotebookRNN(len(corpus.vocabulary), n_hidden, n_layers).to(device)
        list(islice(train_steps(model, np.asarray(corpus.ids), 128, 256, device), 3))
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated(device) / 2**20)
    else:
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)


def peak(command: list[str]) -> float:
    """The most MiB that a process and the files it maps took."""
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"benchmarks.memory: {' '.join(command)} failed")
    return usage.ru_maxrss / 2**10


def of_text(text: str, device: str, flags: list[str]) -> None:
    """Print the table for train.py on a text: encoded the first time, mapped the second."""
    rows = [["run", "text", "peak", "beyond importing torch"]]
    torch_alone = peak([sys.executable, "-c", "import torch"])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "--data", text, "--ckpt", f"{folder}/rnn.net"]
        for run in ("first", "second"):
            most = peak([*command, "--device", device, *flags])
            size = f"{Path(text).stat().st_size / 1e6:,.0f} MB"
            rows.append([run, size, f"{most:,.0f} MiB", f"{most - torch_alone:,.0f} MiB"])
    table(rows)


def main() -> None:
    """Parse the command line and print the table."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="auto")
    p.add_argument("--sizes", nargs="+", default=("256x1", "512x2", "1024x2"))
    p.add_argument("--child", help=argparse.SUPPRESS)
    p.add_argument("--text", metavar="FILE")
    args, flags = p.parse_known_args()
    device = pick_device(args.device)
    if args.text:
        of_text(args.text, args.device, flags)
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
    main()
