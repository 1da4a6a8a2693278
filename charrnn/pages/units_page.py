"""Make the page of what single units follow, as in Karpathy et al. 2015, arXiv:1506.02078."""

import numpy as np

from charrnn.network.loaded import LoadedModel
from charrnn.pages.chart import scale, svg_image, svg_line, svg_path, svg_text, ticks, y_axis
from charrnn.pages.inputs import Text
from charrnn.pages.page import SHADES, fill, page, page_file, shaded
from charrnn.pages.properties import PROPERTIES
from charrnn.pages.units import (
    LEAST_R,
    MARGIN,
    SHIFTS,
    Finding,
    excerpts,
    is_number,
    shades_of,
    spread,
)

TITLE = "What single units of the model follow"
HOW = (
    "A unit is one number that the model carries from character to character; its value colours "
    "the text, from its lowest (blue) to its highest (orange)."
)


def coloured(text: str, shades: np.ndarray, holds: np.ndarray) -> str:
    """Return a part of the text as HTML, shaded, and underlined where a property holds."""
    characters = zip(text, shades, holds, strict=True)
    html = "".join(shaded(char, shade, "u" if held else "") for char, shade, held in characters)
    return f'<div class="text">{html}</div>'


def average_figure(values: np.ndarray, unit: np.ndarray) -> str:
    """Return an SVG of the mean of a unit: around where a property begins, or for each value of a
    number."""
    number = is_number(values)
    if number:
        low, high = float(values.min()), float(np.quantile(values, 0.99))
        n_steps = max(1, min(48, round(high - low)))
        steps = ((values - low) / (high - low) * n_steps).round()
        groups = ((k, unit[steps == k]) for k in range(n_steps + 1))
        means = [(low + k * (high - low) / n_steps, float(g.mean())) for k, g in groups if len(g)]
    else:
        begins = np.flatnonzero((values[1:] > 0) & (values[:-1] == 0)) + 1
        at = begins[(begins >= 12) & (begins < len(unit) - 25)]
        if not len(at):
            return ""
        means = [(float(lag), float(unit[at + lag].mean())) for lag in range(-12, 25)]
    low, high = spread(unit, values)
    first, last = means[0][0], means[-1][0]
    x_of, y_of = scale(first, last, 40, 340), scale(low, high, 84, 8)
    svg = y_axis(ticks(low, high, 5), y_of, 40, 340)
    svg += "".join(svg_text("x", x_of(x), 102, x) for x in ticks(first, last, 7))
    svg += "" if number else svg_path("begin", f"M{x_of(0)} 4V88")
    svg += svg_line("mean", ((x_of(x), min(90, max(2, y_of(y)))) for x, y in means))
    said = "Mean of the unit "
    said += "for each value" if number else "before and after it begins, in characters"
    image = svg_image(350, 108, said, svg)
    return f"<figure>{image}\n<figcaption>{said}.</figcaption></figure>"


def legend(unit: np.ndarray, values: np.ndarray) -> str:
    """Return the colours of a unit, each with its value."""
    low, high = spread(unit, values)
    steps = range(-SHADES, SHADES + 1, 3)
    marks = (low + (high - low) * (k + SHADES) / (2 * SHADES) for k in steps)
    digits = 2 if high - low > 0.05 else 4
    shades = (shaded(f"{v:+.{digits}f}", k) for v, k in zip(marks, steps, strict=True))
    return f'<div class="key" aria-label="Values of the unit">{"".join(shades)}</div>'


def section(finding: Finding, units: np.ndarray, text: str) -> str:
    """Return the section of a property: how well it is followed, by which units, and how that looks
    in the text."""
    first, *others = finding.best
    number = is_number(finding.values)
    holds = (finding.values == 1) & (not number)
    parts = excerpts(finding.values, text)

    def look(i: int, parts: list[slice]) -> str:
        shades = shades_of(units[:, i], finding.values)
        shown = (coloured(text[part], shades[part], holds[part]) for part in parts)
        return legend(units[:, i], finding.values) + "".join(shown)

    where = "where it is large" if number else "where it holds"
    colour = "high (orange)" if finding.r[first] > 0 else "low (blue)"
    rule = " Underlined: where it holds, as a rule finds it in the text." if holds.any() else ""
    html = f"""<section id="{finding.anchor}"><h2>{finding.name.capitalize()}: unit {first}</h2>
<p>Correlation {finding.r[first]:+.2f}: the unit is {colour} {where}. The best unit reaches
{finding.shifted:.2f} at other times and {finding.untrained:.2f} in an untrained model.{rule}</p>
<div class="look"><div>{look(first, parts)}</div>
{average_figure(finding.values, units[:, first])}</div>\n"""
    for i in others:
        if abs(finding.r[i]) > finding.baseline:
            html += f"<details><summary>unit {i} ({finding.r[i]:+.2f})</summary>"
            html += f"{look(i, parts[:1])}</details>\n"
    return html + "</section>\n"


def overview(findings: list[Finding]) -> str:
    """Return the rows of a table of all properties that vary, with the baselines."""
    rows = ""
    for finding in findings:
        name, i = finding.name, finding.best[0]
        linked = f'<a href="#{finding.anchor}">{name}</a>' if finding.found else name
        bar = f"--r: {finding.height:.3f}; --chance: {finding.baseline:.3f}"
        rows += f"""<tr{"" if finding.found else " class=none"}><th scope="row">{linked}</th>
<td>{i if finding.found else "none"}</td><td>{finding.r[i]:+.2f}</td>
<td class="meter" aria-hidden="true"><span style="{bar}"></span></td>
<td>{finding.shifted:.2f}</td><td>{finding.untrained:.2f}</td></tr>\n"""
    return rows


def units_page(
    model: LoadedModel, text: Text, characters: str, findings: list[Finding], units: np.ndarray
) -> str:
    """Return the whole page."""
    is_lstm = model.net.has_cell_state
    found = [finding for finding in findings if finding.found]
    absent = [name for name in PROPERTIES if name not in [f.name for f in findings]]
    verdict = (
        f"Of {len(findings)} properties that vary in this text, {len(found)} have a unit that "
        "follows them clearly."
        if found
        else "No unit follows any of the properties better than chance and an untrained model do: "
        "there is nothing to show here, and that is a result, too."
    )
    body = fill(
        "neurons.html",
        n_hidden=f"{model.net.n_hidden:,}",
        state="the squashed memory tanh(c) of an LSTM" if is_lstm else "the hidden state h",
        verdict=verdict,
        absent=f" Not in this text, or hardly: {', '.join(absent)}." if absent else "",
        overview=overview(findings),
        shifts=SHIFTS,
        least_r=LEAST_R,
        margin=MARGIN,
        sections="".join(section(finding, units, characters) for finding in found),
    )
    caption = [model.description, f"{text.name}: {text.part}, {len(characters):,} characters read"]
    if model.loss is not None:
        caption.insert(1, f"held-out loss {model.loss:.4f} nats per character")
    caption += text.notes
    return page(TITLE, HOW, caption, body, page_file("neurons.css"), wide=True)
