"""Which cells of a model follow quotes, lines, words: a page as in Karpathy et al. 2015,
arXiv:1506.02078."""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from charrnn.network.evaluation import read_rows
from charrnn.network.model import CharRNN
from charrnn.pages.inputs import Model, Text, add_reading_flags, load_model, read_corpus, read_text
from charrnn.pages.page import (
    SHADES,
    escape,
    page,
    page_file,
    points,
    scale,
    shade_class,
    shaded,
    ticks,
    write_page,
)
from charrnn.pages.properties import PROPERTIES, properties_of
from charrnn.system.cli import Parser, command
from charrnn.system.console import say
from charrnn.system.files import check_output

READ = 50_000  # characters to choose by
SHIFTS = 20  # times by which a property is shifted to see what chance gives
LEAST, MARGIN = 0.4, 0.15  # a cell that follows correlates so much, and beats all else by so much
ENOUGH = 512  # untrained cells, for the best of them to be no matter of luck
BEST = 3  # cells of a property that are shown
EXCERPT, EXCERPTS = 360, 2  # characters of one, and how many
BACK = 80  # characters that it may begin earlier, at the start of a line
TITLE = "What single cells of the model follow"
HOW = (
    "A cell is one number that the model carries from character to character; its value colours "
    "the text, from its lowest (blue) to its highest (orange)."
)


def states(model: CharRNN, ids: Tensor) -> np.ndarray:
    """The last layer after each of ``ids[:-1]``, ``[T - 1, n_hidden]``: tanh(c) of an LSTM, else h.

    The text is read in rows side by side, each after the characters that precede it.
    """
    units = np.empty((len(ids) - 1, model.n_hidden), np.float32)
    for _, places, hidden in read_rows(model, ids, shortest=256, at_a_time=1):
        last = (hidden[1].tanh() if model.has_cell_state else hidden)[-1]
        units[places[:, 0].numpy()] = last.float().nan_to_num().cpu().numpy()
    return units


@dataclass(frozen=True)
class Finding:
    """How well the cells follow one property."""

    name: str
    values: np.ndarray  # [T]
    r: np.ndarray  # [n_hidden]: Pearson correlation of each cell
    shifted: float  # the best cell's, either sign, for the property at other times
    untrained: float  # that of a model of the same size before training

    @property
    def best(self) -> list[int]:
        """The cells that follow best, either sign."""
        return np.argsort(-np.abs(self.r), kind="stable")[:BEST].tolist()

    @property
    def height(self) -> float:
        """The best cell's correlation, without its sign."""
        return float(np.abs(self.r).max())

    @property
    def lead(self) -> float:
        """By how much it beats what it is compared with."""
        return self.height - max(self.shifted, self.untrained)

    @property
    def found(self) -> bool:
        """Whether that is clear enough to be called following."""
        return self.height >= LEAST and self.lead > MARGIN


def standardised(columns: np.ndarray) -> np.ndarray:
    """Columns ``[T, N]`` with mean 0 and length 1, so that products are correlations; constant ones
    become zeros."""
    columns = columns - columns.mean(axis=0)
    length = np.linalg.norm(columns, axis=0)
    return columns / np.where(length > 1e-6 * len(columns) ** 0.5, length, np.inf)


def find(cells: np.ndarray, untrained: np.ndarray, text: str) -> list[Finding]:
    """What the cells ``[T, n_hidden]`` follow, clearest first, of all that varies in the text.

    Two things tell following from chance: the same cells for the same property moved to other times
    (round the end, SHIFTS ways), and the same property for an untrained model's cells, which echo
    the last characters too.
    """
    cells, untrained = standardised(cells), standardised(untrained)
    shifts = [len(text) * k // (SHIFTS + 1) for k in range(1, SHIFTS + 1)]
    findings = []
    for name, values in properties_of(text).items():
        others = standardised(np.stack([np.roll(values, shift) for shift in shifts], axis=1))
        followed = standardised(values[:, None])
        findings.append(
            Finding(
                name,
                values,
                (cells.T @ followed)[:, 0],
                float(np.abs(cells.T @ others).max()),
                float(np.abs(untrained.T @ followed).max()),
            )
        )
    return sorted(findings, key=lambda finding: -finding.lead)


def untrained_states(model: CharRNN, ids: Tensor) -> np.ndarray:
    """As ``states``, of models of the same kind and size as they are before any training: of
    several if they are small, since the best of few random cells is a matter of luck."""
    found = []
    for seed in range(max(1, min(8, -(-ENOUGH // model.n_hidden)))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = CharRNN(
                tuple(model.unique_tokens), model.n_hidden, model.n_layers, 0.0, model.cell
            )
        found.append(states(fresh.to(model.fc.weight.device).eval(), ids))
    return np.concatenate(found, axis=1)


def is_number(values: np.ndarray) -> bool:
    """Whether a property has more values than yes and no."""
    return len(np.unique(values)) > 2


def spread(cell: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """A cell's own range, without the hundredth part at each end; of a property that holds seldom,
    where it holds counts as much as where it does not."""
    sides = [cell] if is_number(values) else [cell[values == 0], cell[values == 1]]
    ends = np.array([np.quantile(side, (0.01, 0.99)) for side in sides if len(side)])
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def shades_of(cell: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A cell's own range stretched over the colours, ``[T]`` from -SHADES to SHADES."""
    low, high = spread(cell, values)
    middle, half = (low + high) / 2, max((high - low) / 2, 1e-9)
    return ((cell - middle) / half * SHADES).round().clip(-SHADES, SHADES).astype(int)


def excerpts(values: np.ndarray, text: str) -> list[slice]:
    """Short parts of the text where the property changes most, each from the start of a line or a
    word, in the order of the text."""
    changes = np.abs(np.diff(values, prepend=values[:1])) / max(float(values.std()), 1e-9)
    total = np.concatenate(([0.0], changes.clip(max=3).cumsum()))
    starts = np.arange(0, max(1, len(text) - EXCERPT), 20)
    inner = np.minimum(starts + EXCERPT - BACK, len(text))  # still there if it begins earlier
    score = total[inner] - total[np.minimum(starts + BACK, inner)]
    chosen: list[int] = []
    for start in starts[np.argsort(-score, kind="stable")].tolist():
        if len(chosen) < EXCERPTS and all(abs(start - other) > 2 * EXCERPT for other in chosen):
            chosen.append(start)
    parts = []
    for start in sorted(chosen):
        line, word = (text.rfind(end, max(0, start - BACK), start + 1) for end in "\n ")
        start = line + 1 if line >= 0 else word + 1 if word >= 0 else start
        parts.append(slice(start, start + EXCERPT))
    return parts


def coloured(text: str, shades: np.ndarray, holds: np.ndarray) -> str:
    """A part of the text, shaded; underlined where a property holds."""
    html = ""
    for char, shade, held in zip(text, shades.tolist(), holds.tolist(), strict=True):
        name = " ".join(filter(None, (shade_class(shade), "u" if held else "")))
        html += f'<i class="{name}">{escape(char)}</i>' if name else f"<i>{escape(char)}</i>"
    return f'<div class="text">{html}</div>'


def average(values: np.ndarray, cell: np.ndarray) -> str:
    """The cell's mean, as SVG: around where a property begins, or for each value of a number."""
    number = is_number(values)
    if number:
        low, high = float(values.min()), float(np.quantile(values, 0.99))
        last = max(1, min(48, round(high - low)))
        place = ((values - low) / (high - low) * last).round()
        shown = ((k, cell[place == k]) for k in range(last + 1))
        means = [(low + k * (high - low) / last, float(c.mean())) for k, c in shown if len(c)]
    else:
        begins = np.flatnonzero((values[1:] > 0) & (values[:-1] == 0)) + 1
        lags = range(-12, 25)
        at = begins[(begins >= 12) & (begins < len(cell) - 25)]
        if not len(at):
            return ""
        means = [(float(lag), float(cell[at + lag].mean())) for lag in lags]
    low, high = spread(cell, values)
    x_of, y_of = scale(means[0][0], means[-1][0], 40, 340), scale(low, high, 84, 8)
    svg = "".join(
        f'<path class="grid" d="M40 {y_of(y)}H340"/>'
        f'<text x="34" y="{y_of(y) + 4:g}" text-anchor="end">{y:.4g}</text>'
        for y in ticks(low, high, 5)
    )
    svg += "".join(
        f'<text x="{x_of(x)}" y="102" text-anchor="middle">{x:g}</text>'
        for x in ticks(means[0][0], means[-1][0], 7)
    )
    svg += "" if number else f'<path class="begin" d="M{x_of(0)} 4V88"/>'
    line = points([(x_of(x), min(90, max(2, y_of(y)))) for x, y in means])
    said = "for each value" if number else "before and after it begins, in characters"
    return f"""<figure><svg viewBox="0 0 350 108" role="img" aria-label="Mean of the cell {said}">
{svg}<path class="mean" d="{line}"/></svg>
<figcaption>Mean of the cell {said}.</figcaption></figure>"""


def key(cell: np.ndarray, values: np.ndarray) -> str:
    """The colours of a cell, each with its value."""
    low, high = spread(cell, values)
    steps = range(-SHADES, SHADES + 1, 3)
    values = (low + (high - low) * (k + SHADES) / (2 * SHADES) for k in steps)
    digits = 2 if high - low > 0.05 else 4
    shades = (shaded(f"{v:+.{digits}f}", k) for v, k in zip(values, steps, strict=True))
    return f'<div class="key" aria-label="Values of the cell">{"".join(shades)}</div>'


def section(finding: Finding, cells: np.ndarray, text: str) -> str:
    """A property that is followed: how well, by which cells, and how that looks in the text."""
    first, *others = finding.best
    anchor = finding.name.replace(" ", "-")
    holds = (finding.values == 1) & (not is_number(finding.values))
    parts = excerpts(finding.values, text)

    def shown(i: int, parts: list[slice]) -> str:
        shades = shades_of(cells[:, i], finding.values)
        return "".join(coloured(text[part], shades[part], holds[part]) for part in parts)

    where = "where it is large" if is_number(finding.values) else "where it holds"
    colour = "high (orange)" if finding.r[first] > 0 else "low (blue)"
    sign = f"Correlation {finding.r[first]:+.2f}: the cell is {colour} {where}"
    underlined = " Underlined: where it holds, as a rule finds it in the text." * bool(holds.any())
    html = f"""<section id="{anchor}"><h2>{finding.name.capitalize()}: cell {first}</h2>
<p>{sign}. The best cell reaches {finding.shifted:.2f} at other times and {finding.untrained:.2f} in
an untrained model.{underlined}</p>
<div class="look"><div>{key(cells[:, first], finding.values)}{shown(first, parts)}</div>
{average(finding.values, cells[:, first])}</div>\n"""
    least = max(finding.shifted, finding.untrained)
    for i in (i for i in others if abs(finding.r[i]) > least):
        html += f"<details><summary>cell {i} ({finding.r[i]:+.2f})</summary>"
        html += key(cells[:, i], finding.values)
        html += f"{shown(i, parts[:1])}</details>\n"
    return html + "</section>\n"


def overview(findings: list[Finding]) -> str:
    """All properties that vary, with what they are held against."""
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
    return f"""<table><thead><tr><th scope="col">property</th><th scope="col">cell</th>
<th scope="col">best</th><th class="meter" aria-hidden="true"></th><th scope="col">shifted</th>
<th scope="col">untrained</th></tr></thead><tbody>{rows}</tbody></table>"""


def neurons_page(
    model: Model, text: Text, characters: str, findings: list[Finding], cells: np.ndarray
) -> str:
    """The whole page."""
    net = model.net
    found = [finding for finding in findings if finding.found]
    absent = [name for name in PROPERTIES if name not in [f.name for f in findings]]
    what = "the squashed memory tanh(c) of an LSTM" if net.has_cell_state else "the hidden state h"
    verdict = (
        f"Of {len(findings)} properties that vary in this text, {len(found)} have a cell that "
        "follows them clearly."
        if found
        else "No cell follows any of the properties better than chance and an untrained model do: "
        "there is nothing to show here, and that is a result, too."
    )
    absent_said = f" Not in this text, or hardly: {', '.join(absent)}." * bool(absent)
    body = f"""<p>Nobody told the model what to keep in its {net.n_hidden:,} cells ({what}). It only
learned to guess the next character, and to guess well it pays to know, say, whether a quotation is
still open. Some cells come to carry one such thing that has a name; most carry mixtures that have
none (Karpathy et al. 2015, arXiv:1506.02078).</p>
<p><b>{verdict}</b>{absent_said}</p>
{overview(findings)}
<p class="small">Best: the correlation (Pearson, from -1 to +1; either sign will do) of the cell
that follows a property best. Shifted: the best that any cell reaches for the same property moved to
{SHIFTS} other times, which is chance. Untrained: the best cell of such a model with random weights,
which echoes the last characters, too. A cell is said to follow from {LEAST:g} on, if that is
{MARGIN:g} above both.</p>
{"".join(section(finding, cells, characters) for finding in found)}"""
    part = "the part held out in training" if text.split == "val" else "all of it"
    caption = [model.describe(), f"{text.name}: {part}, {len(characters):,} characters read"]
    loss = model.checkpoint.get("val_loss")
    if isinstance(loss, float) and 0 <= loss < 100:
        caption.insert(1, f"held-out loss {loss:.4f} nats per character")
    caption += text.notes
    return page(TITLE, HOW, caption, body, page_file("neurons.css"), wide=True)


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line, print the best cells, and write the page."""
    p = Parser(__doc__)
    p.add_argument("--ckpt", metavar="FILE", default="rnn.net", help="the model")
    add_reading_flags(p)
    p.add_argument("--out", metavar="HTML", default="neurons.html", help="the page")
    args = p.parse_args(argv)
    check_output(args.out, inputs=[args.ckpt, *(args.data or [])], special=True)
    model = load_model(args.ckpt, args.device)
    corpus = read_corpus(args, [model])
    check_output(args.out, inputs=[args.ckpt, *corpus.paths], special=True)
    text = read_text(args, [model], corpus)
    for note in text.notes:
        say(note)
    ids = text.ids[0][:READ]
    cells = states(model.net, ids)
    ids = ids[: len(cells)]
    characters = "".join(map(model.net.unique_tokens.__getitem__, ids.tolist()))
    findings = find(cells, untrained_states(model.net, ids), characters)
    for finding in findings:
        i = finding.best[0]
        followed = f"cell {i} ({finding.r[i]:+.3f})" if finding.found else "no cell"
        best = "" if finding.found else f"best {finding.r[i]:+.3f}, "
        said = f"{best}shifted {finding.shifted:.3f}, untrained {finding.untrained:.3f}"
        print(f"{finding.name}: {followed}; {said}")
    write_page(args.out, neurons_page(model, text, characters, findings, cells))


if __name__ == "__main__":
    sys.exit(main())
