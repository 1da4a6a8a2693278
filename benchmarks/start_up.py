"""Print seconds from typing ``python sample.py`` to its first character, beside those for importing
torch and reading the same checkpoint. Run ``python -m benchmarks.start_up``."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.common import ROOT, alternate, machine, ratios, spread, table
from benchmarks.sampling_speed import TOKENS
from charrnn import CharRNN, save_checkpoint
from charrnn.errors import UserError
from charrnn.system.cli import Parser, command


def turn(*arguments: str) -> Callable[[], float]:
    """Return a turn that runs Python with these arguments and returns the seconds it took. A turn
    raises UserError if it fails."""

    def seconds() -> float:
        began = time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise UserError(f"{' '.join(arguments)} failed")
        return time.perf_counter() - began

    return seconds


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    p = Parser(__doc__)
    p.add_argument("--repeats", type=int, default=7, help="turns of each side")
    p.add_argument("--sizes", type=int, nargs="+", default=(512, 1024), help="units of two layers")
    args = p.parse_args(argv)
    print(f"{machine(torch.device('cpu'))}\nseconds: median (lowest-highest)\n")
    rows = [["model", "import torch, read the file", "first character", "ratio"]]
    for n_hidden in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "rnn.net"))
            save_checkpoint(path, CharRNN(TOKENS, n_hidden, 2))
            flags = ["--ckpt", path, "--prime", "A", "--size", "1", "--device", "cpu"]
            turns = {
                "torch": turn("-c", f"import torch; torch.load({path!r})"),
                "sample": turn("sample.py", *flags),
            }
            alternate(turns, 1)  # not counted: it reads files for the first time
            seconds = alternate(turns, args.repeats)
        row = [f"{n_hidden} x 2", spread(seconds["torch"], 2), spread(seconds["sample"], 2)]
        rows.append([*row, ratios(seconds["sample"], seconds["torch"])])
    table(rows)


if __name__ == "__main__":
    sys.exit(main())
