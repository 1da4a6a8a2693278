"""Print every figure that needs a GPU, with the target of each. Run ``python -m benchmarks.gpu``;
with ``--tiny`` it tries every part in a minute or two.

Any NVIDIA GPU will do. Where float16 is fast (from capability 7.0 on, as of a V100 or T4) our side
trains in it, elsewhere in float32.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd import DeviceType

from benchmarks.common import (
    ROOT,
    alternate,
    find_text,
    machine,
    make_text,
    ratios,
    spread,
    table,
    wait,
)
from benchmarks.notebook_baseline import NotebookRNN
from benchmarks.notebook_run import Epoch, epochs_of
from benchmarks.ours import WARM_UP, Enough, train_rate, watch
from charrnn.errors import UserError
from charrnn.network.device import pick_device
from charrnn.network.model import CharRNN
from charrnn.system.cli import Parser, command
from charrnn.text.corpus import Corpus, load_corpus
from charrnn.text.split import split_text
from charrnn.training.batches import Batches

LSTM = ("aten::_cudnn_rnn", "aten::_cudnn_rnn_backward")
N_PROFILED = 20  # steps
PUBLISHED = 1.292  # nats held out, of the Udacity notebook from which this one descends

TINY = {  # flags with which each part takes seconds
    "training_speed": "--repeats 1 --seconds 0.01 --batch 4 8 --sizes 8x1",
    "sampling_speed": "--repeats 1 --seconds 0.01 --sizes 8 --streams 1",
    "memory": "--sizes 8x1",
    "train.py": "--preset accelerator --n-hidden 8",
}


def run(*arguments: str, **options: Any) -> None:
    """Run Python with these arguments in the project's folder. Raises UserError if it fails."""
    if subprocess.run([sys.executable, *arguments], cwd=ROOT, **options).returncode:
        raise UserError(f"{' '.join(arguments)} failed, as said above")


def kernel_times(events: Iterable[Any]) -> tuple[float, float]:
    """Return the microseconds in which the GPU ran cuDNN's LSTM, and those in which it was busy at
    all.

    A kernel occurs twice in a profile: as an event of the GPU, and within the time of the operation
    that launched it. The total is the sum of the former; the latter tell which are the LSTM's.
    """
    device_time = lstm_time = 0.0
    for event in events:
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            device_time += event.self_device_time_total
        elif event.device_type == DeviceType.CPU and event.key in LSTM:
            lstm_time += event.device_time_total
    return lstm_time, device_time


def lstm_share(data: str, device: torch.device, n_hidden: int) -> str:
    """Return a sentence on what the GPU does in our training step, at two layers."""
    profile, began = torch.profiler.profile(), 0.0

    def before_step(n: int) -> None:
        nonlocal began
        if n == WARM_UP:
            wait(device)
            profile.start()
            began = time.perf_counter()
        elif n == WARM_UP + N_PROFILED:
            wait(device)
            seconds = time.perf_counter() - began
            profile.stop()
            raise Enough(seconds)

    size = {"n_hidden": n_hidden, "n_layers": 2, "drop_prob": 0.5}
    batch = {"batch_size": 128, "seq_length": 256}
    seconds = watch(before_step, data=[data], device=str(device), **size, **batch)
    lstm, total = kernel_times(profile.key_averages())
    return (
        f"{lstm / total:.0%} of the time of our step's kernels is cuDNN's LSTM; under the profiler "
        f"the GPU was busy for {total / 1e6 / seconds:.0%} of the time"
    )


def layer_table(data: str, device: torch.device, sizes: Iterable[str], seconds: float) -> None:
    """Print our training's characters per second with all layers in one call of nn.LSTM, and with
    one call for each layer."""

    def turn(by_layer: bool, n_hidden: int, n_layers: int) -> float:
        with patch.object(CharRNN, "is_faster_by_layer", by_layer):
            size = {"n_hidden": n_hidden, "n_layers": n_layers}
            return train_rate(seconds, device, 64, 128, data=[data], **size)

    rows = [["model", "layers at once", "layer by layer", "ratio"]]
    for size in sizes:
        n_hidden, n_layers = map(int, size.split("x"))
        turns = {str(way): partial(turn, way, n_hidden, n_layers) for way in (False, True)}
        at_once, by_layer = alternate(turns, 3).values()
        row = [f"{n_hidden} x {n_layers}", spread(at_once), spread(by_layer)]
        rows.append([*row, ratios(by_layer, at_once)])
    table(rows)


def our_run(data: str, epochs: int, device: torch.device, flags: list[str]) -> tuple[list, float]:
    """Run ``train.py --epochs``; return the lines of its log, and the seconds from the command to
    its end."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = ["-m", "benchmarks.run_parts", "--epochs", str(epochs), "--data", data]
        command += ["--device", str(device)]
        run(*command, "--ckpt", str(Path(folder, "rnn.net")), *flags)
        seconds = time.perf_counter() - began
        lines = Path(folder, "rnn.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], seconds


def their_run(
    corpus: Corpus, epochs: int, device: torch.device, n_hidden: int, val_frac: float
) -> list[Epoch]:
    """Train the notebook's recipe; return its figures after each epoch."""
    torch.manual_seed(1)
    model = NotebookRNN(len(corpus.vocabulary), n_hidden, 2).to(device)
    return list(islice(epochs_of(model, corpus, device, val_frac), epochs))


def seconds_until(reached: Iterable[tuple[float, float]], wanted: float) -> str:
    """Return the seconds until a run first had a loss of at most ``wanted``, or "never".

    ``reached`` gives pairs of seconds and loss.
    """
    return next((f"{seconds:.0f}" for seconds, loss in reached if loss <= wanted), "never")


def compare(data: str, epochs: int, device: torch.device, n_hidden: int, flags: list[str]) -> None:
    """Train by both recipes. Print where our time went, each epoch of the notebook's, and
    how long both took to reach the losses of interest.

    The notebook's loss is the lower of the two that ``notebook_run`` prints, read from zeros and
    from the states that training carries, because its model has not been trained to start from
    zeros.
    """
    (first, *lines, last), seconds = our_run(data, epochs, device, flags)
    theirs = their_run(load_corpus([data]), epochs, device, n_hidden, first["val_frac"])
    print()
    table([["notebook: seconds of steps", "training", "evaluate", "from zeros", "from carried"]])
    for epoch in theirs:
        print("| " + " | ".join([f"{epoch.seconds:.0f}", *(f"{x:.4f}" for x in epoch[2:])]) + " |")
    print()
    their_losses = [(epoch.seconds, min(epoch.held_out, epoch.from_carried)) for epoch in theirs]
    evaluated = [line for line in lines if line["val_loss"] is not None]
    our_losses = [(line["seconds"], line["val_loss"]) for line in evaluated]
    our_losses.append((seconds, last["val_loss"]))
    best = min(loss for _, loss in their_losses)
    head = ["recipe", "seconds", "training at its end", "held out, nats/char"]
    rows = [[*head, f"seconds to {PUBLISHED}", f"seconds to {best:.3f}, the notebook's best here"]]
    for name, spent, train_loss, losses in (
        ("notebook, its steps alone", theirs[-1].seconds, theirs[-1].train_loss, their_losses),
        ("ours, to its end; with evaluations", seconds, lines[-1]["train_loss"], our_losses),
    ):
        until = [seconds_until(losses, wanted) for wanted in (PUBLISHED, best)]
        rows.append([name, f"{spent:.0f}", f"{train_loss:.4f}", f"{losses[-1][1]:.4f}", *until])
    table(rows)


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line, try every part in seconds, then run the long ones."""
    p = Parser(__doc__)
    p.add_argument("--data", help="default: Anna Karenina, or a made-up text as long")
    p.add_argument("--device", default="cuda", help="cuda or cuda:N; cpu only with --tiny")
    p.add_argument("--epochs", type=int, default=15, help="of both recipes")
    p.add_argument("--tiny", action="store_true", help="try every part; figures mean nothing")
    args = p.parse_args(argv)
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        if args.tiny:
            data, epochs, n_hidden, tiny = make_text(folder, 80_000), 1, 8, TINY
        else:
            data, epochs, n_hidden, tiny = find_text(args.data, folder), args.epochs, 1024, {}
        corpus = load_corpus([data])
        Batches(split_text(corpus.ids, 0.1)[0], 128, 256)  # raises now for a text too short
        if not args.tiny:  # nothing may be found missing after an hour
            print("every part in small first, for a minute or two", flush=True)
            command = ["-m", "benchmarks.gpu", "--tiny", "--device", args.device]
            run(*command, stdout=subprocess.DEVNULL)
        print(machine(device), flush=True)

        def part(title: str, name: str, *more: str) -> None:
            print(f"\n## {title}\n", flush=True)
            flags = ["--device", args.device, *more, *tiny.get(name, "").split()]
            run("-m", f"benchmarks.{name}", *flags)

        part("Training: a ratio of 3 is wanted", "training_speed", "--data", data)
        same = ("--dtype", "float32", "--sizes", "1024x2")
        part("Training, ours in float32, too", "training_speed", "--data", data, *same)
        print("\n## Training, batches of 64 x 128, a layer at a time\n", flush=True)
        sizes = ("8x1",) if args.tiny else ("256x2", "512x1", "512x2", "1024x1", "1024x2", "1152x2")
        layer_table(data, device, sizes, 0.01 if args.tiny else 2)
        part("Sampling: a ratio of 10 with one stream is wanted", "sampling_speed")
        part("Memory", "memory")
        print("\n## What the GPU does\n", flush=True)
        if device.type == "cuda":
            print(lstm_share(data, device, n_hidden), flush=True)
        print(f"\n## {epochs} epochs: 1.172 nats in 20 seconds are wanted\n", flush=True)
        compare(data, epochs, device, n_hidden, tiny.get("train.py", "").split())


if __name__ == "__main__":
    sys.exit(main())
