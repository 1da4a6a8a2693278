"""Make the page of how the loss of runs fell."""

import math
import statistics
from itertools import groupby

from charrnn.pages.chart import Scale, scale, svg_image, svg_line, svg_path, svg_text, ticks, y_axis
from charrnn.pages.page import escape, page, page_file
from charrnn.pages.runs import AXES, LOSSES, Run

# what decides which text is held out
DECIDE_HELD_OUT = {"text", "val_frac", "val_split", "min_count", "encoding"}
UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
HOW = "The loss is how surprised the model is by each next character, on average: lower is better."
LINES = {
    "val_loss": "Thick: text that it never trained on.",
    "train_loss": "Thin: text that it is learning from.",
}


def numbers(runs: list[Run], *names: str) -> list[float]:
    """Return the numbers of these names in all lines of the runs, without NaN."""
    return [line[name] for run in runs for name in names for line in run.known(name)]


def loss_range(runs: list[Run]) -> tuple[float, float]:
    """Return the range of the loss axis. Values far above the median are left out."""
    shown = [each for run in runs for each in (run, *run.seeds)]
    values = numbers(shown, *LOSSES) or [0.0]
    low, half = min(values), statistics.median(values)
    high = max(value for value in values if value <= half + max(4 * (half - low), 0.5))
    margin = max(high - low, 1e-3) * 0.04
    return low - margin, high + margin


def figure(runs: list[Run], axis: str, width: int) -> str:
    """Return the losses over an axis as SVG, with the learning rate as a strip below; 1 unit is 1
    pixel."""
    left, right, top, bottom = 46, width - 44, 24, 24 + round(width * 0.25 + 150)
    strip, foot = bottom + 14, bottom + 58
    last = max(numbers(runs, axis), default=0.0)
    unit, unit_name = 1, AXES[axis]
    if axis == "seconds":
        unit, unit_name = next((unit for unit in UNITS if last >= 3 * unit[0]), UNITS[-1])
    low, high = loss_range(runs)
    x_of, y_of = scale(0, max(last, 1e-9), left, right), scale(low, high, bottom, top)
    top_rate = max(numbers(runs, "lr"), default=0.0) or 1.0
    rate_of = scale(0, top_rate, foot, strip)
    clip = f"clip-{axis}-{width}"
    svg = f'<clipPath id="{clip}"><path d="M0 {top}H{width}V{bottom}H0z"/></clipPath>\n'
    for value in ticks(0, last / unit, (right - left) // 75):
        x = x_of(value * unit)
        svg += svg_path("grid", f"M{x} {top}V{foot}")
        svg += svg_text("x", x, foot + 18, value)
    svg += y_axis(ticks(low, high), y_of, left, right)
    for bits in ticks(low / math.log(2), high / math.log(2)):
        y = y_of(bits * math.log(2))
        svg += svg_path("tick", f"M{right} {y}h4")
        svg += svg_text("bits", right + 7, y + 4, bits)
    svg += svg_text("unit", left, 12, "nats per character")
    svg += svg_text("bits unit", width, 12, "bits")
    svg += svg_path("grid", f"M{left} {foot}H{right}")
    svg += svg_text("x unit", (left + right) / 2, foot + 36, unit_name)
    svg += svg_text("y", left - 6, strip + 10, f"{top_rate:.2g}")
    svg += svg_text("inside", right - 4, strip + 8, "learning rate")
    marked: list[float] = []  # places along the upper edge
    for run in runs:
        rates = [(x_of(line[axis]), rate_of(line["lr"])) for line in run.lines]
        svg += f'\n<g style="--colour: {run.colour}">{svg_line("rate", rates)}'
        for loss in LOSSES:
            places = [(x_of(line[axis]), max(y_of(line[loss]), -1e4)) for line in run.known(loss)]
            svg += f'<g clip-path="url(#{clip})">{band(run, axis, loss, x_of, y_of)}'
            svg += svg_line(loss, places) + "</g>"
            svg += outliers(run, axis, loss, x_of, top, high, marked)
        svg += evaluation_dots(run, axis, x_of, y_of, high) + "</g>"
    svg += names_at_ends(runs, axis, x_of, y_of, (top, bottom), right)  # on top of all lines
    return svg_image(width, foot + 44, f"Losses of {len(runs)} runs over {unit_name}", svg)


def band(run: Run, axis: str, loss: str, x_of: Scale, y_of: Scale) -> str:
    """Return the area between the lowest and the highest of a run's seeds; nothing for a single
    run."""
    upper, lower = [], []
    for line, *of_seeds in zip(run.lines, *(seed.lines for seed in run.seeds), strict=False):
        values = [each[loss] for each in of_seeds]
        if values and not math.isnan(sum(values)):
            upper.append((x_of(line[axis]), y_of(max(values))))
            lower.append((x_of(line[axis]), y_of(min(values))))
    return svg_line("band", upper + lower[::-1], "Z") if upper else ""


def outliers(
    run: Run, axis: str, loss: str, x_of: Scale, top: float, high: float, marked: list[float]
) -> str:
    """Return a mark at the upper edge for each stretch above the axis, with its highest value.
    ``marked`` has the places of such values; a value that would lie on another is left out."""
    svg = ""
    for above, lines in groupby(run.known(axis, loss), key=lambda line: line[loss] > high):
        if above:
            worst = max(lines, key=lambda line: line[loss])
            x = x_of(worst[axis])
            svg += svg_path("outlier", f"M{x} {top}l4 7h-8z")
            if not any(abs(x - other) < 40 for other in marked):
                svg += svg_text("outlier", x + 7, top + 9, f"{worst[loss]:.3g}")
                marked.append(x)
    return svg


def evaluation_dots(run: Run, axis: str, x_of: Scale, y_of: Scale, high: float) -> str:
    """Return a dot with its value for each held-out loss; the best one has a ring."""
    svg, best = "", run.lowest()
    for line in run.known(axis, "val_loss"):
        x, nats = x_of(line[axis]), line["val_loss"]
        if nats <= high:
            kind, radius = ("dot best", 5) if line is best else ("dot", 2.5)
            said = f"{run.name}: {nats:.4f} nats, {nats / math.log(2):.4f} bits held out"
            svg += f'<circle class="{kind}" cx="{x}" cy="{y_of(nats)}" r="{radius}"><title>'
            svg += f"{escape(said)}, {line[axis]:,.6g} {AXES[axis]}</title></circle>"
    return svg


def names_at_ends(
    runs: list[Run], axis: str, x_of: Scale, y_of: Scale, edges: tuple, right: float
) -> str:
    """Return each run's name above the end of its line, in the order of the ends, without
    overlap."""
    ends = []
    for run in runs:
        loss = "val_loss" if run.lowest() else "train_loss"
        for line in run.known(axis, loss)[-1:]:
            ends.append((x_of(line[axis]), y_of(line[loss]), run))
    ends.sort(key=lambda end: end[1])
    top, bottom = edges[0] + 12, edges[1] - 4
    apart = min(15, (bottom - top) / max(len(ends) - 1, 1))
    svg, y = "", top - apart
    for n_below, (x, end, run) in zip(reversed(range(len(ends))), ends, strict=True):
        y = max(end - 9, y + apart)  # as near the end as the name above it allows
        lowest = bottom - n_below * apart  # leaves room for the names below it
        name = run.name if len(run.name) <= 28 else f"{run.name[:14]}\u2026{run.name[-13:]}"
        x = max(x, 60 + 7 * len(name))  # a short run's name begins inside the figure
        text = svg_text("name", min(x, right - 6), min(y, lowest), name)
        svg += f'<g style="--colour: {run.colour}">{text}</g>'
    return svg


def table(runs: list[Run]) -> str:
    """Return a table of the best held-out loss of each run, and what it took."""
    heads = ("run", "model", "best nats", "bits", "at step", "minutes", "chars/s")
    rows = ""
    for run in runs:
        best = run.best() or {"val_loss": math.nan, "step": math.nan}
        bests = [each["val_loss"] for seed in run.seeds if (each := seed.best())]
        spread = f" ({min(bests):.4f} to {max(bests):.4f})" if bests else ""
        nats, seconds, chars = best["val_loss"], run.lines[-1]["seconds"], run.lines[-1]["chars"]
        cells = [
            run.model(),
            f"{nats:.4f}{spread}",
            f"{nats / math.log(2):.4f}",
            f"{best['step']:,.0f}",
            f"{seconds / 60:,.1f}",
            f"{chars / seconds if seconds > 0 else math.nan:,.0f}",
        ]
        cells = ["\u2013" if cell in ("", "nan") else cell for cell in cells]
        row = "".join(
            f'<td data-head="{head}">{escape(cell)}</td>'
            for head, cell in zip(heads[1:], cells, strict=True)
        )
        rows += f'<tr><th scope="row">{swatch(run)}</th>{row}</tr>\n'
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>\n"


def swatch(run: Run) -> str:
    """Return the run's colour and name."""
    colour = f'<span class="swatch" style="--colour: {run.colour}"></span>'
    return f"{colour}<bdi>{escape(run.name)}</bdi>"


def differences(runs: list[Run]) -> str:
    """Return a list of the settings that differ between the runs; empty if none do."""
    told = dict.fromkeys(["text", *(name for run in runs for name in run.settings)])
    names = [name for name in told if len({run.of(name) for run in runs}) > 1]
    if not names:
        return ""
    items = ""
    for run in runs:
        said = ", ".join(f"{name.replace('_', '-')} {run.of(name)}" for name in names)
        items += f"<dt>{swatch(run)}</dt> <dd>{escape(said)}</dd>\n"
    warning = "<p>Their held-out texts differ: such losses do not compare.</p>\n"
    other_text = warning if DECIDE_HELD_OUT.intersection(names) else ""
    return f"<h2>What differs</h2>\n{other_text}<dl>{items}</dl>\n"


def marks_legend(runs: list[Run]) -> str:
    """Return what the marks in the figure mean."""
    high = loss_range(runs)[1]
    marks = []
    if any(run.lowest() for run in runs):
        marks.append("\u25cb lowest held-out loss on the way")
    if any(value > high for value in numbers(runs, *LOSSES)):
        marks.append("\u25b2 a value above the figure, which would flatten all the rest")
    if any(run.seeds for run in runs):
        marks.append("lines of several seeds are their mean, the band is from lowest to highest")
    return f"<figcaption>{'; '.join(marks)}.</figcaption>" if marks else ""


def body(runs: list[Run]) -> str:
    """Return the switch, a figure for each axis at two widths, what differs, and the table."""
    switch = "".join(
        f'<input type="radio" name="axis" id="by-{axis}"{" checked" if axis == "seconds" else ""}>'
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
<figure>{figures}{marks_legend(runs)}</figure>
{table(runs)}{differences(runs)}{skipped}"""


def curves_page(runs: list[Run]) -> str:
    """Return the whole page."""
    caption = [runs[0].name, runs[0].model()] if len(runs) == 1 else [f"{len(runs)} runs"]
    caption += dict.fromkeys(run.text for run in runs)
    if bests := [best["val_loss"] for run in runs if (best := run.best())]:
        caption.append(f"best held-out loss {min(bests):.4f} nats per character")
    title = "How the loss fell" if len(runs) == 1 else f"How the loss fell in {len(runs)} runs"
    how = " ".join([HOW, *(said for loss, said in LINES.items() if numbers(runs, loss))])
    return page(title, how, filter(None, caption), body(runs), page_file("curves.css"))
