"""Draw the losses of runs, from the .jsonl files that train.py leaves, on a page."""

import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn.errors import UserError
from charrnn.pages.page import (
    escape,
    page,
    page_file,
    points,
    scale,
    series_colour,
    short,
    ticks,
    write_page,
)
from charrnn.system.cli import Parser, command
from charrnn.system.console import say
from charrnn.system.files import check_output, require_regular

AXES = {"seconds": "time", "epoch": "epochs", "chars": "characters"}
LOSSES = ("train_loss", "val_loss")
HELD_OUT = ("text", "val_frac", "val_split", "min_count", "encoding")  # decide the held-out text
UNITS = ((1, "seconds"), (60, "minutes"), (3600, "hours"))
HOW = "The loss is how surprised the model is by each next character, on average: lower is better."
LINES = {
    "val_loss": "Thick: text that it never trained on.",
    "train_loss": "Thin: text that it is learning from.",
}


@dataclass
class Run:
    """What a log says: settings, and the numbers of each line, NaN for null."""

    name: str
    settings: dict[str, Any]
    text: str
    lines: list[dict[str, float]]
    skipped: int  # lines that could not be read
    final: dict[str, float] | None = None  # of the best model, on all of the held-out text
    colour: str = "inherit"
    length: str = ""  # of the text, in characters

    def lowest(self) -> dict[str, float] | None:
        """The line with the lowest held-out loss, None without any."""
        known = [line for line in self.lines if not math.isnan(line["val_loss"])]
        return min(known, key=lambda line: line["val_loss"], default=None)

    def best(self) -> dict[str, float] | None:
        """The run's figure: of the finished run, else of the lowest line."""
        return self.final or self.lowest()

    def of(self, name: str) -> str:
        """A setting, or the text's name, as the log has it; a dash where it does not say."""
        text = " of ".join(filter(None, (self.text, self.length)))
        value = text if name == "text" else self.settings.get(name)
        return str(value)[:80] if value not in (None, "") else "\u2013"

    def model(self) -> str:
        """Cell and size, as far as the settings say."""
        cell, *size = (self.settings.get(key) for key in ("cell", "n_hidden", "n_layers"))
        sizes = " \u00d7 ".join(str(n) for n in size if type(n) is int)
        return f"{cell if isinstance(cell, str) else ''} {sizes}".strip() or "\u2013"


def read_log(path: str) -> Run:
    """The run in a log of train.py. Lines that cannot be read are counted and skipped.

    Raises UserError where no line can be read, OSError as the file system does.
    """
    require_regular(path, "a log of train.py")
    run = Run(Path(path).stem, {}, "", [], 0)
    with open(path, "rb") as file:
        for raw in file:
            if not raw.strip():
                continue
            try:
                line = json.loads(raw.decode())
                if isinstance(line.get("settings"), dict):
                    run.settings = line["settings"]
                    about = line.get("text")
                    run.text = str(about.get("name", "")) if isinstance(about, dict) else ""
                    chars = about.get("chars") if isinstance(about, dict) else None
                    run.length = f"{chars:,} characters" if type(chars) is int else ""
                    continue
                numbers = {key: _number(line[key]) for key in (*AXES, *LOSSES)}
                numbers |= {key: _number(line.get(key)) for key in ("step", "lr")}
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                run.skipped += 1
                continue
            if line.get("final") is True and not math.isnan(numbers["val_loss"]):
                run.final = numbers
            else:
                run.lines.append(numbers)
    if not run.lines:
        run.lines = [run.final] if run.final else []
    if not run.lines:
        problem = "is empty" if not (run.skipped or run.settings) else "no line of losses in it"
        raise UserError(f"{path}: no log of train.py: {problem}; give a .jsonl that it left")
    return run


def _number(value: object) -> float:
    """A number of a log; NaN for null and what no axis could show. Raises TypeError."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise TypeError("not a number")
    return float(value) if value is not None and abs(value) < 1e12 else math.nan


def known(values: list[float]) -> list[float]:
    """``values`` without NaN; a zero where nothing else is left."""
    return [value for value in values if not math.isnan(value)] or [0.0]


def loss_range(runs: list[Run]) -> tuple[float, float]:
    """What the loss axis shows: all but what is five times as far up as half of the values are."""
    values = known([line[loss] for run in runs for line in run.lines for loss in LOSSES])
    low, half = min(values), statistics.median(values)
    high = max(value for value in values if value <= half + max(4 * (half - low), 0.5))
    margin = max(high - low, 1e-3) * 0.04
    return low - margin, high + margin


def figure(runs: list[Run], axis: str, width: int) -> str:
    """The losses over an axis as SVG, the learning rate as a strip below; 1 unit is 1 pixel."""
    left, right, top, bottom = 46, width - 44, 24, 24 + round(width * 0.25 + 150)
    strip, foot = bottom + 14, bottom + 58
    last = max(known([line[axis] for run in runs for line in run.lines]))
    unit, unit_name = 1, AXES[axis]
    if axis == "seconds":
        unit, unit_name = next(u for u in reversed(UNITS) if last >= 3 * u[0] or u[0] == 1)
    low, high = loss_range(runs)
    x_of, y_of = scale(0, max(last, 1e-9), left, right), scale(low, high, bottom, top)
    top_rate = max(known([line["lr"] for run in runs for line in run.lines])) or 1.0
    rate_of = scale(0, top_rate, foot, strip)
    clip = f"clip-{axis}-{width}"
    svg = f'<clipPath id="{clip}"><path d="M0 {top}H{width}V{bottom}H0z"/></clipPath>\n'
    for value in ticks(0, last / unit, (right - left) // 75):
        x = x_of(value * unit)
        svg += f'<path class="grid" d="M{x} {top}V{foot}"/>'
        svg += f'<text class="x" x="{x}" y="{foot + 18}">{short(value)}</text>\n'
    for value in ticks(low, high):
        y = y_of(value)
        svg += f'<path class="grid" d="M{left} {y}H{right}"/>'
        svg += f'<text class="y" x="{left - 6}" y="{y + 4}">{value:,.6g}</text>\n'
    for bits in ticks(low / math.log(2), high / math.log(2)):
        y = y_of(bits * math.log(2))
        svg += f'<path class="tick" d="M{right} {y}h4"/>'
        svg += f'<text class="bits" x="{right + 7}" y="{y + 4}">{bits:,.6g}</text>\n'
    svg += f'<text class="unit" x="{left}" y="12">nats per character</text>'
    svg += f'<text class="bits unit" x="{width}" y="12">bits</text>'
    svg += f'<path class="grid" d="M{left} {foot}H{right}"/>'
    svg += f'<text class="x unit" x="{(left + right) / 2}" y="{foot + 36}">{unit_name}</text>'
    svg += f'<text class="y" x="{left - 6}" y="{strip + 10}">{top_rate:.2g}</text>'
    svg += f'<text class="inside" x="{right - 4}" y="{strip + 8}">learning rate</text>\n'
    marked: list[float] = []  # places along the upper edge
    for run in runs:
        colour = f'style="--colour: {run.colour}"'
        xs = [x_of(line[axis]) for line in run.lines]
        rates = points(list(zip(xs, [rate_of(line["lr"]) for line in run.lines], strict=True)))
        svg += f'<path class="rate" {colour} d="{rates}"/>\n'
        for loss in LOSSES:
            ys = [max(y_of(line[loss]), -1e4) for line in run.lines]
            pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(y)]
            path = points(pairs)
            svg += f'<path class="{loss}" {colour} clip-path="url(#{clip})" d="{path}"/>\n'
            svg += outliers(run, loss, xs, top, high, marked)
        svg += evaluations(run, axis, xs, y_of, high)
    names = names_at_ends(runs, axis, x_of, y_of, (top, bottom), right)  # on top of all lines
    label = escape(f"Losses of {len(runs)} runs over {unit_name}")
    box = f'viewBox="0 0 {width} {foot + 44}" role="img" aria-label="{label}"'
    return f"<svg {box}>\n{svg}{names}</svg>\n"


def outliers(
    run: Run, loss: str, xs: list[float], top: float, high: float, marked: list[float]
) -> str:
    """A mark at the upper edge with the highest value of each stretch that is above the axis."""
    svg, worst = "", None
    for x, line in [*zip(xs, run.lines, strict=True), (0.0, {loss: -math.inf})]:
        value = line[loss]
        if value > high and (worst is None or value > worst[1]):
            worst = (x, value)
        elif value <= high and worst is not None:
            x, value = worst
            svg += f'<path class="outlier" style="--colour: {run.colour}" d="M{x} {top}l4 7h-8z"/>'
            if not any(abs(x - other) < 40 for other in marked):
                svg += f'<text class="outlier" x="{x + 7:g}" y="{top + 9}">{value:.3g}</text>\n'
                marked.append(x)
            worst = None
    return svg


def evaluations(run: Run, axis: str, xs: list[float], y_of: Any, high: float) -> str:
    """A dot that says its value for each held-out loss, the best one ringed."""
    svg, best = "", run.lowest()
    for x, line in zip(xs, run.lines, strict=True):
        value = line["val_loss"]
        if value <= high and not math.isnan(x):
            kind = "dot best" if line is best else "dot"
            said = f"{run.name}: {value:.4f} nats, {value / math.log(2):.4f} bits held out"
            svg += f'<circle class="{kind}" style="--colour: {run.colour}" cx="{x}" '
            svg += f'cy="{y_of(value)}" r="{5 if line is best else 2.5}"><title>'
            svg += f"{escape(said)}, {line[axis]:,.6g} {AXES[axis]}</title></circle>\n"
    return svg


def names_at_ends(
    runs: list[Run], axis: str, x_of: Any, y_of: Any, edges: tuple, right: float
) -> str:
    """Each run's name above the end of its line; in the order of the ends, none on another."""
    ends = []
    for run in runs:
        loss = "val_loss" if run.lowest() else "train_loss"
        places = [(x_of(line[axis]), y_of(line[loss])) for line in run.lines]
        places = [(x, y) for x, y in places if not math.isnan(x + y)]
        ends += [(*places[-1], run)] if places else []
    ends.sort(key=lambda end: end[1])
    top, bottom = edges[0] + 12, edges[1] - 4
    apart = min(15, (bottom - top) / max(len(ends) - 1, 1))
    heights: list[float] = []
    for _, y, _ in ends:  # from above: each as near its end as the one before it allows
        heights.append(max(y - 9, heights[-1] + apart if heights else top))
    lowest = bottom
    for i in reversed(range(len(heights))):  # what does not fit below moves up
        heights[i] = lowest = min(heights[i], lowest)
        lowest -= apart
    svg = ""
    for (x, _, run), y in zip(ends, heights, strict=True):
        name = run.name if len(run.name) <= 28 else f"{run.name[:14]}\u2026{run.name[-13:]}"
        x = max(x, 60 + 7 * len(name))  # a short run's name begins inside the figure
        svg += f'<text class="name" style="--colour: {run.colour}" x="{min(x, right - 6):g}" '
        svg += f'y="{y:g}">{escape(name)}</text>\n'
    return svg


def table(runs: list[Run]) -> str:
    """The best held-out loss of each run, and what it took."""
    heads = ("run", "model", "best nats", "bits", "at step", "minutes", "chars/s")
    rows = ""
    for run in runs:
        best, last = run.best(), run.lines[-1]
        cells = [run.model()]
        if best:
            nats = best["val_loss"]
            cells += [f"{nats:.4f}", f"{nats / math.log(2):.4f}", f"{best['step']:,.0f}"]
        else:
            cells += ["\u2013"] * 3
        cells += [f"{last['seconds'] / 60:,.1f}"]
        cells += [f"{last['chars'] / last['seconds']:,.0f}" if last["seconds"] > 0 else "\u2013"]
        cells = [cell.replace("nan", "\u2013") if cell == "nan" else cell for cell in cells]
        row = "".join(
            f'<td data-head="{head}">{escape(cell)}</td>'
            for head, cell in zip(heads[1:], cells, strict=True)
        )
        rows += f'<tr><th scope="row">{swatch(run)}</th>{row}</tr>\n'
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>\n"


def swatch(run: Run) -> str:
    """The run's colour and name."""
    colour = f'<span class="swatch" style="--colour: {run.colour}"></span>'
    return f"{colour}<bdi>{escape(run.name)}</bdi>"


def differences(runs: list[Run]) -> str:
    """What the runs were told that differs between them, a list; empty where nothing does."""
    names = dict.fromkeys(["text", *(name for run in runs for name in run.settings)])
    names = [name for name in names if len({run.of(name) for run in runs}) > 1]
    if not names:
        return ""
    items = ""
    for run in runs:
        said = ", ".join(f"{name.replace('_', '-')} {run.of(name)}" for name in names)
        items += f"<dt>{swatch(run)}</dt> <dd>{escape(said)}</dd>\n"
    warning = "<p>Their held-out texts differ: such losses do not compare.</p>\n"
    other_text = warning * any(name in HELD_OUT for name in names)
    return f"<h2>What differs</h2>\n{other_text}<dl>{items}</dl>\n"


def legend(runs: list[Run]) -> str:
    """What the marks mean that are in the figure."""
    high = loss_range(runs)[1]
    marks = []
    if any(run.lowest() for run in runs):
        marks.append("\u25cb lowest held-out loss on the way")
    if any(line[loss] > high for run in runs for line in run.lines for loss in LOSSES):
        marks.append("\u25b2 a value above the figure, which would flatten all the rest")
    return f"<figcaption>{'; '.join(marks)}.</figcaption>" if marks else ""


def how_to_read(runs: list[Run]) -> str:
    """What the loss is, and which lines are there."""
    drawn = (k for k in LINES if not all(math.isnan(line[k]) for r in runs for line in r.lines))
    return " ".join((HOW, *map(LINES.__getitem__, drawn)))


def body(runs: list[Run]) -> str:
    """The switch, a figure for each axis at two widths, what differs, and the table."""
    switch = "".join(
        f'<input type="radio" name="axis" id="by-{axis}"{" checked" * (axis == "seconds")}>'
        f'<label for="by-{axis}">{name}</label>'
        for axis, name in AXES.items()
    )
    figures = "".join(
        f'<div class="{axis} {size}">{figure(runs, axis, width)}</div>\n'
        for axis in AXES
        for size, width in (("full", 704), ("phone", 350))
    )
    skipped = "".join(
        f"<p class=small>{escape(run.name)}: {run.skipped} lines could not be read and are left "
        "out.</p>\n"
        for run in runs
        if run.skipped
    )
    return f"""<fieldset class="switch"><legend class="unseen">Across: time, epochs or characters
</legend>{switch}</fieldset>
<figure>{figures}{legend(runs)}</figure>
{table(runs)}{differences(runs)}{skipped}"""


def name_runs(runs: dict[str, Run]) -> list[Run]:
    """The runs with a colour each, and with their paths as names where file names are the same."""
    for i, (path, run) in enumerate(runs.items()):
        run.colour = series_colour(i)
        if sum(other.name == Path(path).stem for other in runs.values()) > 1:
            run.name = path
    return list(runs.values())


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the page."""
    p = Parser(__doc__)
    p.add_argument("logs", metavar="LOG", nargs="+", help="a .jsonl that train.py left")
    p.add_argument("--out", default="curves.html", metavar="FILE", help="the page")
    args = p.parse_args(argv)
    check_output(args.out, inputs=args.logs, special=True)
    runs = name_runs({path: read_log(path) for path in args.logs})
    for path, run in zip(dict.fromkeys(args.logs), runs, strict=True):
        if run.skipped:
            say(f"{path}: {run.skipped} lines cannot be read and are left out")
    texts = list(dict.fromkeys(run.text for run in runs if run.text))
    caption = [runs[0].name if len(runs) == 1 else f"{len(runs)} runs", *texts]
    if len(runs) == 1 and runs[0].model() != "\u2013":
        caption.insert(1, runs[0].model())
    if bests := [best["val_loss"] for run in runs if (best := run.best())]:
        caption.append(f"best held-out loss {min(bests):.4f} nats per character")
    title = "How the loss fell" if len(runs) == 1 else f"How the loss fell in {len(runs)} runs"
    write_page(
        args.out, page(title, how_to_read(runs), caption, body(runs), page_file("curves.css"))
    )


if __name__ == "__main__":
    sys.exit(main())
