"""Properties of each place in a text, which a unit of a model may follow."""

import re
from collections.abc import Callable, Iterator

import numpy as np

LEAST = 10  # times that a property must end, or there is nothing to follow
QUOTES = '"\u201c\u201d\u201e\u00ab\u00bb'
OPENING, CLOSING = "([{\uff08", ")]}\uff09"


def properties_of(text: str) -> dict[str, np.ndarray]:
    """The properties that vary in ``text``, by name: after each character, ``[T]`` float64.

    Most are 0 or 1; "place in ..." and "indentation" are numbers.
    """
    found = {name: of(text).astype(np.float64) for name, of in PROPERTIES.items()}
    return {
        name: values
        for name, values in found.items()
        if np.count_nonzero(values[1:] < values[:-1]) >= LEAST
    }


def within(text: str, spans: Iterator[tuple[int, int]]) -> np.ndarray:
    """True from each span's start up to, not including, its end."""
    inside = np.zeros(len(text), bool)
    for start, end in spans:
        inside[start:end] = True
    return inside


def matches(pattern: str) -> Callable[[str], np.ndarray]:
    """The property of lying in a match of a pattern."""
    return lambda text: within(text, (m.span() for m in re.finditer(pattern, text, re.MULTILINE)))


def quotations(text: str) -> Iterator[tuple[int, int]]:
    """From each opening quotation mark to its closing one, in the same paragraph.

    A mark without its other half, a slip or an inch, is none: it must not turn inside and outside
    around for all that follows.
    """
    start = None
    for match in re.finditer(rf"\n[ \t]*\n|[{QUOTES}]", text):
        mark, i = match[0], match.start()
        if mark not in QUOTES:
            start = None
        elif opens(mark, text[max(0, i - 1) : i], text[i + 1 : i + 2], start is not None):
            start = i
        elif start is not None:
            yield start, i
            start = None


def opens(mark: str, before: str, after: str, is_open: bool) -> bool:
    """Whether a quotation mark opens, by what stands beside it, else by its shape; languages differ
    in which one opens, and a straight one does both."""
    left = not before or before.isspace() or before in OPENING or before in "-\u2013\u2014"
    right = not after or after.isspace() or after in CLOSING or after in ".,;:!?-\u2013\u2014"
    if left != right:
        return left
    return mark in "\u201c\u201e\u00ab" if mark != '"' else not is_open


def brackets(text: str) -> Iterator[tuple[int, int]]:
    """From each opening bracket to its closing one; one without its other half is none."""
    unclosed: list[int] = []  # where they are
    for match in re.finditer(rf"\n[ \t]*\n|[{re.escape(OPENING + CLOSING)}]", text):
        mark, i = match[0], match.start()
        if mark in OPENING:
            unclosed.append(i)
        elif mark not in CLOSING:
            unclosed.clear()
        elif (opening := OPENING[CLOSING.index(mark)]) in [text[place] for place in unclosed]:
            while text[unclosed[-1]] != opening:  # those inside have no other half
                unclosed.pop()
            yield unclosed.pop(), i


def since(pattern: str, text: str) -> np.ndarray:
    """How many characters ago the last match of a pattern was: 0 in a match, and everywhere if
    there is none."""
    matched = matches(pattern)(text)
    if not matched.any():
        return np.zeros(len(text))
    at = np.arange(len(text))
    return at - np.maximum.accumulate(np.where(matched, at, -1))


def indentation(text: str) -> np.ndarray:
    """Blanks at the start of the line, as many as were read."""
    indents = np.zeros(len(text))
    for match in re.finditer(r"^([ \t]*)[^\n]*\n?", text, re.MULTILINE):
        start, n = match.start(), len(match[1])
        indents[start : match.end()] = n
        indents[start : start + n] = np.arange(1, n + 1)
    return indents


LETTER = r"[^\W\d_]"
PROPERTIES: dict[str, Callable[[str], np.ndarray]] = {
    "inside quotes": lambda text: within(text, quotations(text)),
    "inside brackets": lambda text: within(text, brackets(text)),
    "place in the line": lambda text: since(r"\n", text),
    # the logarithm of how long ago a blank line was, since paragraphs differ widely in length
    "place in the paragraph": lambda text: np.log1p(since(r"(?<=\n)[ \t]*\n", text)),
    "first letter of a word": matches(rf"(?<!{LETTER}){LETTER}"),
    "last letter of a word": matches(rf"{LETTER}(?!{LETTER})"),
    "indentation": indentation,
    "capitals": matches(r"(?<![^\W_])[^\W\d_a-z][^\na-z]*[^\W\d_a-z](?![^\W_])"),
    "speaker lines": matches(r"^[^\W\d_][^\n:.!?,;]{0,30}:(?=[ \n])"),
    "numbers": matches(r"\d+"),
    "links and markup": matches(
        r"https?://\S+|www\.\S+|<[^<>\n]{1,200}>|\[\[[^\]\n]*\]\]|\{\{[^}\n]*\}\}"
    ),
}
