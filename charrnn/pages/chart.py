"""Scales, axis ticks, texts and paths of the figures, as SVG."""

import math
from collections.abc import Callable, Iterable

from charrnn.pages.page import escape

Scale = Callable[[float], float]  # from values to coordinates
SERIES = 8  # colours of lines, --series-1 to --series-8 in style.css


def scale(low: float, high: float, first: float, last: float) -> Scale:
    """Return a function from values between ``low`` and ``high`` to coordinates, rounded to
    0.01."""
    span = high - low or 1.0
    return lambda value: round(first + (value - low) / span * (last - first), 2)


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Return round values from ``low`` to ``high`` to mark on an axis: at least two, in at most
    ``most`` steps (5 or more) of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    size = 10 ** math.floor(math.log10((high - low) / most))
    step = next(size * k for k in (1, 2, 5, 10, 20) if (high - low) / (size * k) <= most)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def short_number(value: float) -> str:
    """Return a number for an axis: 2,500,000 is 2.5M."""
    size, unit = next(((s, u) for s, u in ((1e9, "G"), (1e6, "M")) if abs(value) >= s), (1, ""))
    return f"{value / size:,.6g}{unit}"


def svg_image(width: float, height: float, label: str, marks: str) -> str:
    """Return an SVG image of ``marks``; screen readers say its ``label``."""
    box = f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}"'
    return f"<svg {box}>{marks}</svg>"


def svg_text(kind: str, x: float, y: float, words: str | float) -> str:
    """Return an SVG text of the class ``kind``; a number is written by ``short_number``."""
    text = words if isinstance(words, str) else short_number(words)
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def svg_path(kind: str, d: str) -> str:
    """Return an SVG path of the class ``kind``."""
    return f'<path class="{kind}" d="{d}"/>'


def y_axis(values: Iterable[float], y_of: Scale, left: float, right: float) -> str:
    """Return a line from ``left`` to ``right`` at each of ``values``, with the number before it."""
    return "".join(
        svg_path("grid", f"M{left} {y_of(value)}H{right}")
        + svg_text("y", left - 6, y_of(value) + 4, value)
        for value in values
    )


def svg_line(kind: str, points: Iterable[tuple[float, float]], end: str = "") -> str:
    """Return an SVG path of the class ``kind`` through points; a NaN interrupts it, and an ``end``
    of "Z" closes it."""
    drawn, pen = "", "M"
    for x, y in points:
        known = not math.isnan(x + y)
        drawn += f"{pen}{x:g} {y:g}" if known else ""
        pen = "L" if known else "M"
    return svg_path(kind, drawn + end)
