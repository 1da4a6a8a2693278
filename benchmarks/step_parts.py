"""Print the milliseconds of each part of a training step, by model and shape of the batch, and how
near its products come to the speed of square ones. Run ``python -m benchmarks.step_parts``.

To measure AVX2 alone on a CPU that has more, set ATEN_CPU_CAPABILITY=avx2 and
ONEDNN_MAX_CPU_ISA=AVX2 in the environment and add ``--dtype float32``.
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.common import (
    alternate,
    flop_per_char,
    machine,
    matmul_peak,
    rate,
    spread,
    table,
)
from charrnn.network.device import keep_freed_memory, pick_device, pick_dtype
from charrnn.network.model import CharRNN
from charrnn.system.cli import Parser, command
from charrnn.training.optimizer import make_optimizers
from charrnn.training.settings import new_settings, resolve_settings

SHAPES = ("512x1:16x64", "512x1:32x64", "512x1:64x64", "512x2:32x64", "1024x2:64x128")
N_CHARS = 87


def parts(
    shape: str, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Callable[[], object]], int]:
    """Return the parts of a step, each as a function, and the FLOP of its products."""
    (n_hidden, n_layers), (rows, length) = (map(int, half.split("x")) for half in shape.split(":"))
    model = CharRNN(tuple(map(chr, range(N_CHARS))), n_hidden, n_layers).to(device)
    x = torch.randint(N_CHARS, (rows, length), device=device)
    hidden = model.init_hidden(rows)
    settings = resolve_settings(new_settings({"epochs": 1}, None), False, 10**6, lambda: 1.0)
    adamw, muon = make_optimizers(model, settings, dtype)
    muon.every = 1
    adamw.found_inf = muon.found_inf = torch.zeros((), device=device)

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits, _ = model(x, hidden)
        return F.cross_entropy(logits.float(), x.flatten())

    def both() -> None:
        model.zero_grad()
        forward().backward()

    both()  # sets up the libraries, and the gradients
    return {
        "forward": forward,
        "forward and backward": both,
        "clip": lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0),
        "AdamW": adamw.step,
        "Muon, each direction": muon.step,
    }, flop_per_char(n_hidden, n_layers, N_CHARS) * rows * length


def milliseconds(part: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Return the milliseconds of one call of ``part``, from calls for at least ``seconds``."""

    def work() -> int:
        part()
        return 1

    return 1000 / rate(work, seconds, device)


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    p = Parser(__doc__)
    p.add_argument("--shapes", nargs="+", default=SHAPES, help="units x layers : rows x length")
    p.add_argument("--device", default="cpu")
    p.add_argument("--dtype", default="auto", help="of the products")
    p.add_argument("--seconds", type=float, default=2, help="of each turn")
    p.add_argument("--repeats", type=int, default=3)
    args = p.parse_args(argv)
    keep_freed_memory()
    device = pick_device(args.device)
    dtype = pick_dtype(args.dtype, device)
    peak = matmul_peak(device, dtype)
    print(f"{machine(device)}\n{dtype}, square products {peak / 1e9:,.0f} GFLOP/s; ", end="")
    print("ms: median (lowest-highest)\n", flush=True)
    rows: list[list[str]] = []
    for shape in args.shapes:
        work, flop = parts(shape, device, dtype)
        turns = {n: partial(milliseconds, part, args.seconds, device) for n, part in work.items()}
        ms = alternate(turns, args.repeats)
        rows = rows or [["model : batch", *work, "of the peak"]]
        best = min(ms["forward and backward"])
        share = f"{flop / (best / 1000) / peak:.0%}"
        rows.append([shape, *(spread(values, 1) for values in ms.values()), share])
    table(rows)


if __name__ == "__main__":
    sys.exit(main())
