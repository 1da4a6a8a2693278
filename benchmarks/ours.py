"""Our side of training: runs the program itself and counts its steps."""

import io
import itertools
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

import train
from benchmarks.common import wait

WARM_UP = 5  # steps, in which the libraries are set up and the fastest kernels are looked for


class Enough(Exception):
    """Ends a run; its argument is the measurement."""


def watch(before_step: Callable[[int], None], **settings: Any) -> Any:
    """Train as train.py does, calling ``before_step`` with 0, 1, 2, ... until it raises Enough;
    return the argument of Enough.

    ``settings`` are those of ``train.train``. The run is planned for an hour, with one evaluation a
    minute; it prints nothing and leaves no files.
    """
    train_step, numbers = train.train_step, itertools.count()

    def watched(*args: Any) -> Any:
        before_step(next(numbers))
        return train_step(*args)

    train.train_step = watched
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            ckpt = str(Path(folder, "rnn.net"))
            train.train(ckpt=ckpt, preset="accelerator", minutes=60.0, **settings)
    except Enough as enough:
        return enough.args[0]
    finally:
        train.train_step = train_step
    raise RuntimeError("an hour of training was not enough")


def train_rate(
    seconds: float, device: torch.device, batch_size: int, seq_length: int, **settings: Any
) -> float:
    """Return characters per second of the program's loop, over at least ``seconds``."""
    # on a GPU a step is not waited for one by one: neither does the loop
    together = 10 if device.type == "cuda" else 1
    began = 0.0

    def before_step(n: int) -> None:
        nonlocal began
        if n == WARM_UP:
            wait(device)
            began = time.perf_counter()
        elif n > WARM_UP and (n - WARM_UP) % together == 0:
            if time.perf_counter() - began < seconds:
                return
            wait(device)
            chars = (n - WARM_UP) * batch_size * seq_length
            raise Enough(chars / (time.perf_counter() - began))

    sizes = {"batch_size": batch_size, "seq_length": seq_length}
    return watch(before_step, device=str(device), **sizes, **settings)
