"""The house of every page: one self-contained file in one style, light and dark, that loads
nothing; escaping, colours, scales and ticks."""

import base64
import hashlib
import html
import json
import math
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Any

from charrnn.system.console import escape_control_chars
from charrnn.system.files import open_output

SHADES = 9  # from -9, cold, to 9, hot; text stays readable on each, light or dark
SERIES = 8  # colours of lines, --series-1 to --series-8 in style.css


def page_file(name: str) -> str:
    """The text of a file in the package's folder ``pages``: a style or a script."""
    return (resources.files("charrnn.pages") / "static" / name).read_text(encoding="utf-8")


def escape(text: str) -> str:
    """``text`` for an element or a quoted attribute; control characters are spelled out."""
    return html.escape(escape_control_chars(text))


def embed(value: Any) -> str:
    """JSON for a ``<script>`` element that is not run: ASCII without <, > and &, so that no text
    in it can end the element or begin another."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(
    title: str,
    how_to_read: str,
    caption: Iterable[str],
    body: str,
    style: str = "",
    script: str = "",
    policy: str = "",
    wide: bool = False,
) -> str:
    """A whole page. ``title``: what one sees; ``how_to_read``: one sentence; ``caption``: model,
    text and loss, each plain text; ``body`` is HTML, ``style`` CSS, ``script`` JavaScript of ours
    that runs after the body, allowed by its hash alone. ``policy`` adds to the
    Content-Security-Policy, which otherwise allows nothing. ``wide``: room beside the text."""
    allowed = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'"
    if script:
        script = f"\n{script}\n".replace("\r\n", "\n")  # as the HTML parser has it, and so the hash
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed += f"; script-src 'sha256-{digest}'"
    allowed += f"; {policy}" * bool(policy)
    facts = " ".join(f"<span><bdi>{escape(fact)}</bdi></span>" for fact in caption)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="charrnn">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{page_file("style.css")}
{style}</style>
</head>
<body{' class="wide"' * wide}>
<header>
<h1>{escape(title)}</h1>
<p class="how">{escape(how_to_read)}</p>
<p class="caption">{facts}</p>
</header>
<main>
{body}
</main>
{f"<script>{script}</script>" * bool(script)}
</body>
</html>
"""


def write_page(path: str, html: str) -> None:
    """Write a page of ``page``; lone surrogates are spelled out. Raises OSError."""
    with open_output(path) as file:
        file.write(html.encode("utf-8", "backslashreplace"))


def shade_class(shade: int) -> str:
    """The class of a background from cold (-SHADES) to hot (SHADES); none for 0."""
    shade = max(-SHADES, min(SHADES, shade))
    return "" if shade == 0 else f"{'c' if shade < 0 else 's'}{abs(shade)}"


def shaded(text: str, shade: int) -> str:
    """An element with ``text`` on a background from cold (-SHADES) to hot (SHADES)."""
    name = shade_class(shade)
    return f"<i{f' class={name}' * bool(name)}>{escape(text)}</i>"


def scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    """Where a value between ``low`` and ``high`` lies between two coordinates, to 0.01."""
    span = high - low or 1.0
    return lambda value: round(first + (value - low) / span * (last - first), 2)


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round values from ``low`` to ``high`` to mark on an axis: at least two, in at most ``most``
    steps (5 or more) of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    size = 10 ** math.floor(math.log10((high - low) / most))
    step = next(size * k for k in (1, 2, 5, 10, 20) if (high - low) / (size * k) <= most)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def short(value: float) -> str:
    """A number for an axis: 2,500,000 is 2.5M."""
    size, unit = next(((s, u) for s, u in ((1e9, "G"), (1e6, "M")) if abs(value) >= s), (1, ""))
    return f"{value / size:,.6g}{unit}"


def series_colour(i: int) -> str:
    """The colour of the ``i``-th line of a figure, as CSS; they come round after SERIES."""
    return f"var(--series-{i % SERIES + 1})"


def points(pairs: Sequence[tuple[float, float]]) -> str:
    """The ``d`` of an SVG path through points; a NaN parts it."""
    drawn, pen = "", "M"
    for x, y in pairs:
        known = not math.isnan(x + y)
        drawn += f"{pen}{x:g} {y:g}" if known else ""
        pen = "L" if known else "M"
    return drawn
