"""Read the losses of runs from their logs."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from charrnn.errors import UserError
from charrnn.pages.chart import SERIES
from charrnn.system.files import require_regular

AXES = {"seconds": "time", "epoch": "epochs", "chars": "characters"}
LOSSES = ("train_loss", "val_loss")


@dataclass
class Run:
    """The contents of a log: the settings, and the numbers of each line, with NaN for null."""

    name: str
    settings: dict[str, Any]
    text: str
    lines: list[dict[str, float]]
    skipped: int  # lines that could not be read
    final: dict[str, float] | None = None  # of the best model, on all of the held-out text
    colour: str = "inherit"
    length: str = ""  # of the text, in characters
    seeds: list["Run"] = field(default_factory=list)  # the runs of which this is the mean

    def known(self, *names: str) -> list[dict[str, float]]:
        """Return the lines that have all of these numbers."""
        return [line for line in self.lines if not math.isnan(sum(map(line.__getitem__, names)))]

    def lowest(self) -> dict[str, float] | None:
        """Return the line with the lowest held-out loss, or None."""
        return min(self.known("val_loss"), key=lambda line: line["val_loss"], default=None)

    def best(self) -> dict[str, float] | None:
        """Return the final line of a finished run, else the line with the lowest loss; with several
        seeds the mean of these."""
        bests = [best for run in self.seeds if (best := run.best())]
        return mean_line(bests) if bests else self.final or self.lowest()

    def of(self, name: str) -> str:
        """Return a setting, or the text's name, in words; a dash if the log does not have it."""
        text = " of ".join(filter(None, (self.text, self.length)))
        value = text if name == "text" else self.settings.get(name)
        return str(value)[:80] if value not in (None, "") else "\u2013"

    def model(self) -> str:
        """Return the cell and the size, as far as the settings have them; "" if they do not."""
        cell, *size = (self.settings.get(key) for key in ("cell", "n_hidden", "n_layers"))
        sizes = " \u00d7 ".join(str(n) for n in size if type(n) is int)
        return f"{cell if isinstance(cell, str) else ''} {sizes}".strip()


def read_log(path: str) -> Run:
    """Read a log of train.py. Lines that cannot be read are counted and skipped.

    Raises UserError if no line can be read, and OSError.
    """
    require_regular(path, "a log of train.py")
    run = Run(Path(path).stem, {}, "", [], 0)
    with open(path, "rb") as file:
        for raw in filter(bytes.strip, file):  # without empty lines
            try:
                line = json.loads(raw.decode())
                if isinstance(line.get("settings"), dict):
                    run.settings = line["settings"]
                    about = line["text"] if isinstance(line.get("text"), dict) else {}
                    run.text, chars = str(about.get("name", "")), about.get("chars")
                    run.length = f"{chars:,} characters" if type(chars) is int else ""
                    continue
                numbers = {key: _number(line[key]) for key in (*AXES, *LOSSES)}
                numbers |= {key: _number(line.get(key)) for key in ("step", "lr")}
                if line.get("final") is True and not math.isnan(numbers["val_loss"]):
                    run.final = numbers
                else:
                    run.lines.append(numbers)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                run.skipped += 1
    if run.final and not run.lines:
        run.lines = [run.final]
    if not run.lines:
        problem = "is empty" if not (run.skipped or run.settings) else "no line of losses in it"
        raise UserError(f"{path}: no log of train.py: {problem}; give a .jsonl that it left")
    return run


def _number(value: object) -> float:
    """Return a number of a log; NaN for null and for numbers too large for an axis. Raises
    TypeError."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise TypeError("not a number")
    return float(value) if value is not None and abs(value) < 1e12 else math.nan


def mean_line(lines: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each number; NaN if one of them is NaN."""
    return {key: fmean(line[key] for line in lines) for key in lines[0]}


def join_seeds(runs: list[Run]) -> list[Run]:
    """Replace runs whose settings differ in the seed alone by their mean, which has them as
    ``seeds``, and give each run of the result a colour.

    Logs have a line at equal shares of a run, so the i-th lines of such runs belong together.
    """
    groups: dict[str, list[Run]] = {}
    for i, run in enumerate(runs):
        same = {name: value for name, value in run.settings.items() if name != "seed"}
        key = json.dumps([same, run.text, run.length], sort_keys=True)
        groups.setdefault(key if "seed" in run.settings else str(i), []).append(run)
    joined = []
    for group in groups.values():
        seeds = [run.settings.get("seed") for run in group]
        if len(group) == 1 or len(set(map(str, seeds))) < len(seeds):
            joined += group
            continue
        mean = copy(group[0])
        mean.name += f" and {len(group) - 1} more seed{'s' if len(group) > 2 else ''}"
        mean.settings = mean.settings | {"seed": ", ".join(map(str, seeds))}
        mean.lines = list(map(mean_line, zip(*(run.lines for run in group), strict=False)))
        mean.skipped = sum(run.skipped for run in group)
        mean.seeds = group
        joined.append(mean)
    for i, run in enumerate(joined):
        run.colour = f"var(--series-{i % SERIES + 1})"  # after SERIES runs they repeat
    return joined


def name_runs(runs: dict[str, Run]) -> list[Run]:
    """Return the runs, named by their paths where file names are the same."""
    times = Counter(run.name for run in runs.values())
    for path, run in runs.items():
        if times[run.name] > 1:
            run.name = path
    return list(runs.values())
