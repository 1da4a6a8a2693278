"""What the tests of training share: a small text, a small run, and its log."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from forked import Forked
from torch import nn

import train
from charrnn.run import report

ROOT = Path(__file__).parent.parent
SMALL = {"device": "cpu", "dtype": "float32", "epochs": 3, "n_hidden": 12, "n_layers": 2}
SMALL |= {"drop_prob": 0.3, "batch_size": 4, "seq_length": 8, "lr": 1e-2}


def write_text(folder: Path, n_words: int = 500, seed: int = 1) -> str:
    """A text of four words in a folder; its path."""
    folder.mkdir(exist_ok=True)
    path = folder / "a.txt"
    words = random.Random(seed).choices(("a", "bad", "cab", "fed\n"), k=n_words)
    path.write_text(" ".join(words), encoding="utf-8")
    return str(path)


def run_in(folder: Path, **given: object) -> train.Trained:
    """Train a small model; the run's files are in ``folder``."""
    data = given.pop("data", None) or [write_text(folder)]
    flags = SMALL | {"data": data, "ckpt": str(folder / "rnn.net")} | given
    with mock.patch.object(report, "SAMPLE", 20):  # else they take a quarter of the time
        return train.train(**flags)


def random_biases(model: nn.Module) -> None:
    """Make all biases random: zeros would hide one that is left out."""
    for name, weight in model.named_parameters():
        if "bias" in name:
            nn.init.normal_(weight)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The log's lines without what the clock decides."""
    lines = [json.loads(line) for line in (folder / "rnn.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """The log's lines of evaluations on the way."""
    return [x for x in read_log(folder) if x.get("val_loss") is not None and not x.get("final")]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, what: Any) -> None:
    """Call ``what()`` while training takes its step ``number``, counted from 1 in this process."""
    real, count = train.train_step, 0

    def step(*args: object) -> object:
        nonlocal count
        count += 1
        if count == number:
            what()
        return real(*args)

    monkeypatch.setattr(train, "train_step", step)


def interrupt() -> None:
    """What Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def start(
    folder: Path, *flags: str, popen: type[subprocess.Popen] = Forked, **more: Any
) -> subprocess.Popen:
    """``python train.py`` in a folder, as a user types it, on the CPU."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | more
    command = [sys.executable, str(ROOT / "train.py"), *flags]
    device = [] if "--resume" in flags else ["--device", "cpu"]
    return popen([*command, *device], cwd=folder, **options)
