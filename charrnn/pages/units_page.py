"""Make the page of what single units follow, as in Karpathy et al. 2015, arXiv:1506.02078."""

import numpy as np

from charrnn.network.loaded import LoadedModel
from charrnn.pages.chart import path_through, scale, svg_image, svg_path, svg_text, ticks, y_axis
from charrnn.pages.inputs import Text
from charrnn.pages.page import SHADES, escape, page, page_file, shade_class, shaded
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
    html = ""
    for char, shade, held in zip(text, shades.tolist(), holds.tolist(), strict=True):
        name = " ".join(filter(None, (shade_class(shade), "u" if held else "")))
        html += f'<i class="{name}">{escape(char)}</i>' if name else f"<i>{escape(char)}</i>"
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
        lags = range(-12, 25)
        at = begins[(begins >= 12) & (begins < len(unit) - 25)]
        if not len(at):
            return ""
        means = [(float(lag), float(unit[at + lag].mean())) for lag in lags]
    low, high = spread(unit, values)
    first, last = means[0][0], means[-1][0]
    x_of, y_of = scale(first, last, 40, 340), scale(low, high, 84, 8)
    svg = y_axis(ticks(low, high, 5), y_of, 40, 340)
    svg += "".join(svg_text("x", x_of(x), 102, f"{x:g}") for x in ticks(first, last, 7))
    svg += "" if number else svg_path("begin", f"M{x_of(0)} 4V88")
    svg += svg_path("mean", path_through((x_of(x), min(90, max(2, y_of(y)))) for x, y in means))
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
    anchor = finding.name.replace(" ", "-")
    holds = (finding.values == 1) & (not is_number(finding.values))
    parts = excerpts(finding.values, text)

    def shown(i: int, parts: list[slice]) -> str:
        shades = shades_of(units[:, i], finding.values)
        return "".join(coloured(text[part], shades[part], holds[part]) for part in parts)

    where = "where it is large" if is_number(finding.values) else "where it holds"
    colour = "high (orange)" if finding.r[first] > 0 else "low (blue)"
    sign = f"Correlation {finding.r[first]:+.2f}: the unit is {colour} {where}"
    rule = " Underlined: where it holds, as a rule finds it in the text."
    underlined = rule if holds.any() else ""
    html = f"""<section id="{anchor}"><h2>{finding.name.capitalize()}: unit {first}</h2>
<p>{sign}. The best unit reaches {finding.shifted:.2f} at other times and {finding.untrained:.2f} in
an untrained model.{underlined}</p>
<div class="look"><div>{legend(units[:, first], finding.values)}{shown(first, parts)}</div>
{average_figure(finding.values, units[:, first])}</div>\n"""
    least = max(finding.shifted, finding.untrained)
    for i in (i for i in others if abs(finding.r[i]) > least):
        html += f"<details><summary>unit {i} ({finding.r[i]:+.2f})</summary>"
        html += legend(units[:, i], finding.values)
        html += f"{shown(i, parts[:1])}</details>\n"
    return html + "</section>\n"


def overview(findings: list[Finding]) -> str:
    """Return a table of all properties that vary, with the baselines."""
    rows = ""
    for finding in findings:
        name, i = finding.name, finding.best[0]
        linked = f'<a href="#{name.replace(" ", "-")}">{name}</a>' if finding.found else name
        bar = f"--r: {finding.height:.3f}; --chance: {max(finding.shifted, finding.untrained):.3f}"
        verdict = str(i) if finding.found else "none"
        rows += f"""<tr{"" if finding.found else " class=none"}><th scope="row">{linked}</th>
<td>{verdict}</td><td>{finding.r[i]:+.2f}</td>
<td class="meter" aria-hidden="true"><span style="{bar}"></span></td>
<td>{finding.shifted:.2f}</td><td>{finding.untrained:.2f}</td></tr>\n"""
    return f"""<table><thead><tr><th scope="col">property</th><th scope="col">unit</th>
<th scope="col">best</th><th class="meter" aria-hidden="true"></th><th scope="col">shifted</th>
<th scope="col">untrained</th></tr></thead><tbody>{rows}</tbody></table>"""


def units_page(
    model: LoadedModel, text: Text, characters: str, findings: list[Finding], units: np.ndarray
) -> str:
    """Return the whole page."""
    net = model.net
    found = [finding for finding in findings if finding.found]
    absent = [name for name in PROPERTIES if name not in [f.name for f in findings]]
    what = "the squashed memory tanh(c) of an LSTM" if net.has_cell_state else "the hidden state h"
    verdict = (
        f"Of {len(findings)} properties that vary in this text, {len(found)} have a unit that "
        "follows them clearly."
        if found
        else "No unit follows any of the properties better than chance and an untrained model do: "
        "there is nothing to show here, and that is a result, too."
    )
    absent_said = f" Not in this text, or hardly: {', '.join(absent)}." if absent else ""
    body = f"""<p>Nobody told the model what to keep in its {net.n_hidden:,} units ({what}). It only
learned to guess the next character, and to guess well it pays to know, say, whether a quotation is
still open. Some units come to carry one such thing that has a name; most carry mixtures that have
none (Karpathy et al. 2015, arXiv:1506.02078).</p>
<p><b>{verdict}</b>{absent_said}</p>
{overview(findings)}
<p class="small">Best: the correlation (Pearson, from -1 to +1; either sign will do) of the unit
that follows a property best. Shifted: the best that any unit reaches for the same property moved to
{SHIFTS} other times, which is chance. Untrained: the best unit of such a model with random weights,
which echoes the last characters, too. A unit is said to follow from {LEAST_R:g} on, if that is
{MARGIN:g} above both.</p>
{"".join(section(finding, units, characters) for finding in found)}"""
    caption = [model.description, f"{text.name}: {text.part}, {len(characters):,} characters read"]
    if model.loss is not None:
        caption.insert(1, f"held-out loss {model.loss:.4f} nats per character")
    caption += text.notes
    return page(TITLE, HOW, caption, body, page_file("neurons.css"), wide=True)
