"""What the benchmarks share: the machine's name, turns taken in alternation, tables."""

import datetime
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

Turn = Callable[[], float]  # does some work, returns a rate


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


def in_a_process(script: str, side: str, *flags: str) -> Turn:
    """A turn of a script's ``--child`` in a process of its own; the child prints a number."""
    command = [sys.executable, "-m", f"benchmarks.{script}", *flags, "--child", side]
    return lambda: float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def alternate(turns: dict[str, Turn], repeats: int) -> dict[str, list[float]]:
    """Each side's rates, the sides taking turns so that a change of the machine hits all alike."""
    for turn in turns.values():  # not counted: it also sets things up
        turn()
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
