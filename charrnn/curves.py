"""Draw the losses of runs, from the .jsonl that train.py leaves, on a page."""

import json
import math
from collections.abc import Callable

from charrnn.checkpoint import check_writable
from charrnn.cli import Parser, run
from charrnn.errors import UserError
from charrnn.page import escape, write_page

AXES = {"seconds": "seconds", "epoch": "epochs", "chars": "characters"}
LOSSES = ("train_loss", "val_loss")
STYLE = """text { font-size: 12px; fill: currentcolor; text-anchor: middle; }
path { fill: none; stroke: currentcolor; stroke-width: 2; } .train_loss { stroke-dasharray: 5 4; }
.grid { stroke-width: 1; opacity: 0.2; } summary { cursor: pointer; }"""


def read_log(path: str) -> list[dict[str, float]]:
    """The numbers in a log that train.py left, NaN for null. Raises UserError with a bad line."""
    log: list[dict[str, float]] = []
    try:
        with open(path, encoding="utf-8") as file:
            for text in list(file) or [""]:  # an empty file is none either
                line = {key: json.loads(text)[key] for key in (*AXES, *LOSSES)}
                known = {key: x for key, x in line.items() if x is not None and abs(x) < 1e12}
                log.append({key: float(known.get(key, "nan")) for key in line})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: no log of train.py: line {len(log) + 1}: {error}") from None
    return log


def scale(values: list[float], first: int, last: int) -> tuple[Callable[[float], float], list]:
    """Where a value lies between two coordinates, and four to ten round values to mark there."""
    known = [value for value in values if not math.isnan(value)] or [0.0]
    low, high = min(known), max(*known, min(known) + 1e-3)
    size = 10 ** math.floor(math.log10((high - low) / 4))
    step = max(size * k for k in (1, 2, 5) if size * k <= (high - low) / 4)
    marks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return lambda x: round(first + (x - low) / (high - low) * (last - first), 2), marks


def figure(logs: dict[str, list[dict[str, float]]], axis: str) -> str:
    """Losses over an axis as SVG; of details with one name a browser opens one at a time."""
    lines = [line for log in logs.values() for line in log]
    x_of, x_marks = scale([0.0, *(line[axis] for line in lines)], 60, 780)
    y_of, y_marks = scale([line[loss] for line in lines for loss in LOSSES], 380, 10)
    legend = "<p>Solid: held out; dashed: training. Point at a dot to read it.</p>\n"
    svg = f'<text x="420" y="420">{AXES[axis]}</text>\n'
    svg += '<text transform="translate(14 195) rotate(-90)">nats per character</text>\n'
    for at, x in ((x_of(x), x) for x in x_marks):
        svg += f'<path class="grid" d="M{at} 10V380"/><text x="{at}" y="398">{x:,.9g}</text>\n'
    for at, y in ((y_of(y), y) for y in y_marks):
        svg += f'<path class="grid" d="M60 {at}H780"/><text x="40" y="{at + 4}">{y:,.9g}</text>\n'
    for i, (path, log) in enumerate(logs.items()):
        colour = f"oklch(60% 0.16 {(250 + 137.5 * i) % 360:g})"  # hues a golden angle apart
        legend += f'<p><b style="color: {colour}">\u25cf</b> <bdi>{escape(path)}</bdi></p>\n'
        for loss in LOSSES:
            drawn, pen = "", "M"
            for line in log:
                x, y = x_of(line[axis]), y_of(line[loss])
                if not math.isnan(x + y):
                    drawn += f"{pen}{x} {y}"
                    svg += f'<circle cx="{x}" cy="{y}" r="3" style="fill: {colour}"><title>'
                    svg += f"{loss} {line[loss]:.4f} at {line[axis]:,.9g}</title></circle>"
                pen = "M" if math.isnan(x + y) else "L"
            svg += f'<path class="{loss}" style="stroke: {colour}" d="{drawn}"/>\n'
    return f"""<details name="x"{" open" * (axis == "seconds")}><summary>by {AXES[axis]}</summary>
<svg viewBox="0 0 800 430">{svg}</svg>\n{legend}</details>\n"""


def main() -> None:
    """Parse the command line and write the page."""
    p = Parser(__doc__)
    p.add_argument("logs", metavar="LOG", nargs="+", help="a .jsonl that train.py left")
    p.add_argument("--out", default="curves.html", metavar="FILE", help="default: curves.html")
    args = p.parse_args()
    check_writable(args.out)
    logs = {path: read_log(path) for path in args.logs}
    write_page(args.out, "Losses", "".join(figure(logs, axis) for axis in AXES), STYLE)


if __name__ == "__main__":
    run(main)
