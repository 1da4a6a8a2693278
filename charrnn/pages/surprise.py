"""Compute where a model, or which of two, is surprised by a text, and make the page that shows
it."""

import base64
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from charrnn.network.evaluation import read_rows
from charrnn.network.loaded import LoadedModel
from charrnn.network.model import CharRNN
from charrnn.pages.chart import scale, svg_image, svg_line, svg_path, svg_text, ticks, y_axis
from charrnn.pages.inputs import Text
from charrnn.pages.page import SHADES, embed, escape, fill, page, page_file, shade_class, shaded

SHOWN = 100_000  # characters on the page: about 5 MB
GUESSES = 5
WORDS = 10
LONGEST = 2_000  # characters of a line that are laid out at a time
PART = 25  # lines of which the browser lays out only those in view
# what stands beside the text as HTML, the shades of the characters, those that links lead to
View = tuple[str, np.ndarray, set[int]]


@dataclass(frozen=True)
class Predictions:
    """What a model expected of ``ids[1:]``."""

    bits: np.ndarray  # [T - 1] float64: -log2 of the probability of what came
    guesses: np.ndarray  # [T - 1, GUESSES] ids of the likeliest, fewer with fewer characters
    p: np.ndarray  # [T - 1, GUESSES] their probabilities
    most_bits: np.ndarray  # [T - 1] float64: those of the least likely character


def predict(model: CharRNN, ids: Tensor) -> Predictions:
    """Return what the model expected at each of ``ids[1:]``, given all before it in ``ids``
    ``[T]``.

    Long texts are read in rows side by side, each after the characters that precede it, as
    ``charrnn.evaluate`` does.
    """
    n_read, n_guesses = len(ids) - 1, min(GUESSES, len(model.unique_tokens))
    bits, most_bits = np.empty(n_read), np.empty(n_read)
    guesses = np.empty((n_read, n_guesses), np.int64)
    p = np.empty((n_read, n_guesses), np.float32)
    for logits, places, _ in read_rows(model, ids):
        target = ids[places + 1].to(logits.device).long()
        log_p = logits.float().log_softmax(dim=2)
        likeliest = log_p.topk(n_guesses)
        at = places.numpy()
        bits[at] = _bits(log_p.gather(2, target[..., None])[..., 0])
        guesses[at] = likeliest.indices.cpu().numpy()
        p[at] = likeliest.values.exp().cpu().numpy()
        most_bits[at] = _bits(log_p.amin(dim=2))
    return Predictions(bits, guesses, p, most_bits)


def _bits(log_p: Tensor) -> np.ndarray:
    """Return the bits of events with these natural log-probabilities, float64."""
    return (log_p.double() / -math.log(2)).cpu().numpy()


def name_of(char: str) -> str:
    """Return ``char``, or a sign or its name if it cannot be seen or would affect what is beside
    it."""
    if char in "\n ":
        return {"\n": "\u21b5", " ": "\u2423"}[char]
    if unicodedata.category(char)[0] in "LNPS":
        return char
    if unicodedata.combining(char):
        return f"\u25cc{char}"
    return unicodedata.name(char, f"U+{ord(char):04X}").lower()


class Word(NamedTuple):
    """A word of the text."""

    start: int  # where it begins
    text: str
    bits: float  # the sum over its characters


def words_of(text: str, bits: np.ndarray) -> list[Word]:
    """Return the words of a text whose characters have these ``bits`` ``[T]``."""
    return [
        Word(match.start(), match[0], float(bits[match.start() : match.end()].sum()))
        for match in re.finditer(r"(?:[^\W_]|['\u2019])+", text)
    ]


def top_words(words: list[Word], n: int) -> list[Word]:
    """Return the ``n`` words with the most bits, of those with more than none; each word counts
    once, at its most surprising place."""
    best: dict[str, Word] = {}
    for word in words:
        if word.bits > (best[word.text].bits if word.text in best else 0.0):
            best[word.text] = word
    return sorted(best.values(), key=lambda word: (-word.bits, word.start))[:n]


def word_links(words: list[Word]) -> str:
    """Return a list of links to words in the text, as HTML."""
    items = (
        f'<li><a href="#c{word.start}"><bdi>{escape(word.text[:40])}</bdi></a> '
        f'<span class="small">{word.bits:.1f} bits</span></li>'
        for word in words
    )
    return f"<ol>{''.join(items)}</ol>"


def text_html(text: str, shades: np.ndarray, linked: set[int]) -> str:
    """Return the text as numbered lines, with an element and a shade for each character."""
    lines, start = [], 0
    for number, line in numbered(text):
        characters = "".join(
            shaded(char, shades[i], "nl" if char == "\n" else "", f"c{i}" if i in linked else "")
            for i, char in enumerate(line, start)
        )
        at = f' data-n="{number:,}"' if number else ""
        lines.append(f'<div class=line data-i="{start}"{at}>{characters}</div>')
        start += len(line)
    parts = ("".join(lines[i : i + PART]) for i in range(0, len(lines), PART))
    return "".join(f"<div class=part>{part}</div>" for part in parts)


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their line ends and numbers. A browser lays out a line as a whole, so a very
    long one is split into pieces, numbered 0 except the first."""
    for number, line in enumerate(re.findall(r"[^\n]*\n|[^\n]+", text), 1):
        for i in range(0, len(line), LONGEST):
            yield (number if i == 0 else 0), line[i : i + LONGEST]


def histogram(values: np.ndarray, marks: dict[str, float], low: float, shade_of: float) -> str:
    """Return an SVG histogram of ``values`` in bins of half a bit, with some values marked by
    name."""
    high = max(max(marks.values()) + 1, float(np.quantile(values, 0.995)), 2.0)
    edges = np.arange(math.floor(low * 2), math.ceil(high * 2) + 1) / 2
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    x_of, y_of = scale(edges[0], edges[-1], 8, 288), scale(0, counts.max(), 110, 34)
    svg = ""
    for left, count in zip(edges, counts.tolist(), strict=False):
        shade = math.floor((left + 0.25) * shade_of)
        x, y, width = x_of(left), y_of(count), x_of(edges[0] + 0.5) - 8.75
        svg += f'<rect class="bin {shade_class(shade)}" x="{x}" y="{y}" width="{width:g}" '
        svg += f'height="{110 - y:g}"><title>{left:g} to {left + 0.5:g} bits: {count:,} '
        svg += "characters</title></rect>"
    for value in ticks(edges[0], edges[-1], 9):
        svg += svg_text("x", x_of(value), 126, value)
    for i, (name, value) in enumerate(marks.items()):
        x = x_of(value)
        svg += svg_path("mark", f"M{x} {12 + 14 * i}V110")
        kind, beside = ("mark", x + 4) if value <= edges.mean() else ("mark end", x - 4)
        svg += svg_text(kind, beside, 20 + 14 * i, name)
    return svg_image(300, 130, f"Histogram of the bits: {', '.join(marks)}", svg)


def data_of(model: LoadedModel, ids: Tensor, found: Predictions) -> dict[str, Any]:
    """Return what the script needs of a model that read ``ids`` ``[T]``, as values that JSON has;
    arrays are base64 of 16-bit numbers."""

    def packed(numbers: np.ndarray) -> str:
        return base64.b64encode(numbers.clip(0, 65535).round().astype("<u2").tobytes()).decode()

    return {
        "name": model.path,
        "tokens": [name_of(char) for char in model.net.unique_tokens],
        "came": packed(ids[1:].long().numpy()),
        "bits": packed(found.bits * 512),
        "guesses": packed(found.guesses),
        "p": packed(found.p * 65535),
    }


def one_model(model: LoadedModel, text: str, bits: np.ndarray, where: str) -> View:
    """Return how surprised the model is. ``where`` says which part of the text this is, and is
    empty for the whole text."""
    no_idea = math.log2(len(model.net.unique_tokens))
    words = top_words(words_of(text, bits), WORDS)
    mean = float(bits[1:].mean())
    marks = {f"mean {mean:.2f}": mean, f"no idea {no_idea:.2f}": no_idea}
    key = "".join(shaded(f"{k}+" if k == SHADES else str(k), k) for k in range(SHADES + 1))
    aside = f"""<h2>What a bit of surprise is</h2>
<div class="key" aria-hidden="true">{key}</div>
<dl><dt>0 bits</dt><dd>certain: the model was sure of this character</dd>
<dt>1 bit</dt><dd>a coin toss: it gave it 1 in 2; each further bit halves that</dd>
<dt>{no_idea:.1f} bits</dt><dd>no idea: as likely as any of the {len(model.net.unique_tokens):,}
characters it knows</dd><dt>more</dt><dd>it expected something else</dd></dl>
<h2>How often</h2>{histogram(bits[1:], marks, 0.0, 1.0)}
<p class="small">Characters by their bits{where}. A mean of {mean:.2f}
bits is a choice among {2**mean:.1f} equally likely characters, again and again.</p>
<h2>Most surprising words</h2>{word_links(words)}"""
    shades = np.nan_to_num(bits, nan=SHADES).clip(0, SHADES).astype(int)
    return aside, shades, {word.start for word in words}


def two_models(models: list[LoadedModel], text: str, bits: list[np.ndarray], where: str) -> View:
    """Return how much more surprised the first model is than the second."""
    difference = bits[0] - bits[1]
    first, second = (f"<bdi>{escape(model.path)}</bdi>" for model in models)
    total, mean = float(difference.sum()), float(difference[1:].mean())
    better, worse = (second, first) if total > 0 else (first, second)
    best = [top_words(words_of(text, d), WORDS // 2) for d in (-difference, difference)]
    lists = "".join(
        f"<h3>{name} expected better</h3>{word_links(words)}"
        for name, words in zip((first, second), best, strict=True)
    )
    marks = {f"mean {mean:+.2f}": mean}
    low = math.floor(min(-2.0, float(np.quantile(difference, 0.005))))
    key = "".join(shaded(f"{k / 2:+g}" if k else "0", k) for k in range(-SHADES + 1, SHADES, 4))
    aside = f"""<h2>Which of the two</h2>
<p><b>{better}</b> expected this text better: it needs {abs(total):,.0f} bits
fewer than {worse}{where}, {abs(mean):.2f} a character. If one of
the two had written it, the odds that it was {better} would be 2 to the power of that.</p>
<div class="key" aria-hidden="true">{key}</div>
<p class="small">Bits of {first} less those of {second}:
blue where the first expected the character better, orange where the second did.</p>
<h2>Who leads</h2>{leader(difference)}
<p class="small">The difference added up along the text: down where
{first} gains, up where {second} does.</p>
<h2>How often</h2>{histogram(difference[1:], marks, low, 2.0)}
<h2>Words that tell</h2>{lists}"""
    shades = np.nan_to_num(difference * 2).round().clip(-SHADES, SHADES).astype(int)
    return aside, shades, {word.start for words in best for word in words}


def leader(difference: np.ndarray) -> str:
    """Return an SVG curve of the difference, summed along the text."""
    at = np.linspace(0, len(difference) - 1, min(len(difference), 280)).astype(int)
    sums = difference.cumsum()[at].tolist()
    low, high = min(0.0, *sums), max(0.0, *sums)
    x_of, y_of = scale(0, max(len(difference) - 1, 1), 58, 296), scale(low, high, 92, 8)
    svg = y_axis(ticks(low, high, 5), y_of, 58, 296)
    svg += svg_line("lead", zip(map(x_of, at.tolist()), map(y_of, sums), strict=True))
    return svg_image(300, 100, f"The difference added up: {sums[-1]:,.0f} bits at the end", svg)


def surprise_page(models: list[LoadedModel], text: Text, losses: list[float]) -> str:
    """Return the whole page: the text, shaded by the surprise of one model or the difference of
    two. ``losses`` are of the whole text, in nats per character."""
    shown = [ids[:SHOWN] for ids in text.ids]
    predictions = [predict(model.net, ids) for model, ids in zip(models, shown, strict=True)]
    characters = models[0].net.vocabulary.decode(shown[0])
    bits = [np.concatenate(([0.0], found.bits)) for found in predictions]  # none for the first
    first = f"the first {len(characters):,} characters"
    where = "" if len(characters) == len(text.ids[0]) else f", in {first} only"
    if len(models) == 1:
        aside, shades, linked = one_model(models[0], characters, bits[0], where)
        title = "Where the model is surprised"
        how = (
            "The model reads from left to right and guesses each next character; the more "
            "orange a character is, the less the model expected it."
        )
    else:
        aside, shades, linked = two_models(models, characters, bits, where)
        title = "Which of two models expects this text"
        how = (
            "Both models guess each next character; blue is where the first came closer, orange "
            "where the second did."
        )
    caption = [
        f"{model.description}, {loss / math.log(2):.4f} bits ({loss:.4f} nats) per character"
        for model, loss in zip(models, losses, strict=True)
    ]
    caption.append(f"{text.name}: {text.part}, {len(text.ids[0]):,} characters")
    caption += text.notes
    body = fill(
        "surprise.html",
        aside=aside,
        part=f" These are {first}." if where else "",
        text=text_html(characters, shades, linked),
        data=embed([data_of(*each) for each in zip(models, shown, predictions, strict=True)]),
    )
    style, script = page_file("surprise.css"), page_file("surprise.js")
    return page(title, how, caption, body, style, script, wide=True)
