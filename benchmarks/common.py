"""What the benchmarks share: a text, the machine's name, measurements in turns, and tables."""

import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import cyrillic
from charrnn.errors import UserError
from charrnn.text.corpus import load_corpus
from charrnn.text.download import ANNA

ROOT = Path(__file__).parent.parent
ANNA_CHARS = 1_985_223
# libgomp's own default, which charrnn.before_torch replaces: the notebook does not
OPENMP_DEFAULT = {"GOMP_SPINCOUNT": "300000"}

Turn = Callable[[], float]  # does some work, returns a rate


def make_text(folder: str, n_chars: int = ANNA_CHARS) -> str:
    """Write a made-up text into ``folder``, by default as long as Anna Karenina; return its
    path."""
    path = Path(folder, "made_up.txt")
    path.write_text(cyrillic.text(n_chars), encoding="utf-8", newline="")
    return str(path)


def find_text(data: str | None, folder: str) -> str:
    """Return the path of ``data``, else of Anna Karenina, found or downloaded as train.py does
    it, else of a made-up text in ``folder``; print which. Raises UserError if ``data`` cannot be
    read."""
    try:
        load_corpus([data] if data else None)
        path = data or str(ANNA)
    except UserError:
        if data:
            raise
        path = make_text(folder)
    print(f"text: {path}", flush=True)
    return path if path == "python-docs" else str(Path(path).resolve())


def machine(device: torch.device) -> str:
    """Return processor, threads, GPU, version of torch and date, in one line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.*)", info.read_text())):
        cpu = found[1]
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return (
        f"{cpu}, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}, "
        f"{datetime.date.today()}"
    )


def wait(device: torch.device) -> None:
    """Wait until the device has finished all work given to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], int], seconds: float, device: torch.device) -> float:
    """Repeat ``work``, which returns how many units it did, for at least ``seconds``; return units
    per second."""
    wait(device)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += work()
        wait(device)
    return done / (time.perf_counter() - began)


def in_a_process(script: str, side: str, *flags: str, env: dict[str, str] | None = None) -> Turn:
    """Return a turn that runs a script with ``--child side`` in a process of its own and returns
    the number that it prints. ``env`` is added to the environment. A turn raises UserError if it
    fails."""
    command = [sys.executable, "-m", f"benchmarks.{script}", *flags, "--child", side]

    def turn() -> float:
        child = subprocess.run(
            command, cwd=ROOT, env=os.environ | (env or {}), stdout=subprocess.PIPE, text=True
        )
        if child.returncode:
            raise UserError(f"{' '.join(command[1:])} failed")
        return float(child.stdout)

    return turn


def alternate(turns: dict[str, Turn], repeats: int) -> dict[str, list[float]]:
    """Return the rates of each side. The sides take turns, so that a change of the machine's speed
    affects all of them alike."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repeats):
        for name, turn in turns.items():
            rates[name].append(turn())
    return rates


def spread(values: list[float], digits: int = 0) -> str:
    """Return ``median (lowest-highest)``."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def ratios(ours: list[float], theirs: list[float]) -> str:
    """Return the spread of the ratios of turns in the same round."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)], 2)


def table(rows: list[list[str]]) -> None:
    """Print rows as a Markdown table; the first one is its head."""
    head, *rest = rows
    for row in (head, ["---"] * len(head), *rest):
        print("| " + " | ".join(row) + " |", flush=True)


def flop_per_char(n_hidden: int, n_layers: int, n_tokens: int) -> int:
    """Return the FLOP of a training step's products for each character: 6 per weight, since forward
    takes one product and backward two. The input's product is left out: it only picks a column."""
    return 6 * (4 * n_hidden**2 * (2 * n_layers - 1) + n_hidden * n_tokens)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP per second of the fastest of several products of square matrices."""
    best = 0.0
    for n in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a = torch.randn(n, n, device=device).to(dtype)

        def product(a: torch.Tensor = a, n: int = n) -> int:
            torch.mm(a, a)
            return 2 * n**3

        best = max(best, *(rate(product, 0.3, device) for _ in range(4)))
    return best


def read_bandwidth(device: torch.device) -> float:
    """Return the bytes per second at which 512 MiB of float32 are summed, the best of several
    runs."""
    numbers = torch.ones(1 << 27, device=device)

    def read() -> int:
        numbers.sum()
        return numbers.nbytes

    return max(rate(read, 0.3, device) for _ in range(4))
