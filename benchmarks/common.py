"""What the benchmarks share: a text, the machine's name, turns taken in alternation, tables."""

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
    """Write a made-up text, as long as Anna Karenina unless said; its path."""
    path = Path(folder, "made_up.txt")
    path.write_text(cyrillic.text(n_chars), encoding="utf-8", newline="")
    return str(path)


def find_text(data: str | None, folder: str) -> str:
    """``data``, else Anna Karenina, found or downloaded as train.py does it, else a made-up text in
    ``folder``; prints which. Raises UserError where ``data`` cannot be read."""
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
    """Processor, threads, GPU, torch and the date, in one line."""
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
    """Until the device has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], int], seconds: float, device: torch.device) -> float:
    """Units per second of ``work``, which returns how many it did, over at least ``seconds``."""
    wait(device)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += work()
        wait(device)
    return done / (time.perf_counter() - began)


def in_a_process(script: str, side: str, *flags: str, env: dict[str, str] | None = None) -> Turn:
    """A turn of a script's ``--child`` in a process of its own; the child prints a number."""
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
    """Each side's rates, the sides taking turns so that a change of the machine hits all alike."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repeats):
        for name, turn in turns.items():
            rates[name].append(turn())
    return rates


def spread(values: list[float], digits: int = 0) -> str:
    """``median (lowest-highest)``."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def ratios(ours: list[float], theirs: list[float]) -> str:
    """The spread of the ratio, turn by turn."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)], 2)


def table(rows: list[list[str]]) -> None:
    """Print Markdown, the first row as the head."""
    head, *rest = rows
    for row in (head, ["---"] * len(head), *rest):
        print("| " + " | ".join(row) + " |", flush=True)


def flop_per_char(n_hidden: int, n_layers: int, n_tokens: int) -> int:
    """Of the products of a training step: 6 per weight, one product forward, two backward; without
    the input's, which only picks a column."""
    return 6 * (4 * n_hidden**2 * (2 * n_layers - 1) + n_hidden * n_tokens)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of the best of several square products."""
    best = 0.0
    for n in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a = torch.randn(n, n, device=device).to(dtype)

        def product(a: torch.Tensor = a, n: int = n) -> int:
            torch.mm(a, a)
            return 2 * n**3

        best = max(best, *(rate(product, 0.3, device) for _ in range(4)))
    return best


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second at which 512 MiB of float32 are summed, best of several."""
    numbers = torch.ones(1 << 27, device=device)

    def read() -> int:
        numbers.sum()
        return numbers.nbytes

    return max(rate(read, 0.3, device) for _ in range(4))
