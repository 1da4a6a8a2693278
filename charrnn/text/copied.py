"""How much of one text stands in another word for word."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from charrnn.text.vocabulary import text_of

RUN = 30  # characters; a shorter run in common is no sign of copying
Blocks = Callable[[], Iterable[np.ndarray]]  # a text's code points, from the beginning each time
MULTIPLIERS = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd: of SplitMix64 and of xxHash


@dataclass(frozen=True)
class Copied:
    """What a text has in common with its source."""

    longest: str  # the longest run of characters that stands in the source as well
    in_runs: np.ndarray  # whether a character is in a run of ``RUN`` or more, [n_chars] bool
    n_lines: int  # that are not empty
    n_copied_lines: int  # of those, which are a whole line of the source


def find_copied(text: np.ndarray, source: Blocks) -> Copied:
    """Compare the code points ``text`` ``[n_chars]`` with those of a source.

    The source may be much longer than memory: only the hashes of the text's own substrings are
    kept, and those of each block of the source are looked up among them.
    """
    in_runs = np.zeros(len(text), dtype=bool)
    if len(text) >= RUN:
        sliding_window_view(in_runs, RUN, writeable=True)[_stands_in(text, source, RUN)] = True
    lines = [line for line in _lines([text]) if line]
    copied = set(lines).intersection(_lines(source()))
    longest = _longest(text, source, RUN if in_runs.any() else 0)
    return Copied(longest, in_runs, len(lines), sum(line in copied for line in lines))


def _longest(text: np.ndarray, source: Blocks, known: int) -> str:
    """Return the longest run in common, found by bisection, since where a run is in common each
    part of it is. One of ``known`` characters is in common; if that is 0, none of ``RUN`` is."""

    def is_too_long(length: int) -> bool:
        return length > len(text) or not _stands_in(text, source, length).any()

    most = 2 * known or RUN  # doubled until it is too long, since most runs are short
    while known and not is_too_long(most):
        known, most = most, 2 * most
    longest = bisect_left(range(most), True, known + 1, key=is_too_long) - 1
    first = int(_stands_in(text, source, longest).argmax()) if longest else 0
    return text_of(text[first : first + longest])


def _stands_in(text: np.ndarray, source: Blocks, length: int) -> np.ndarray:
    """Whether each substring of ``length`` characters of ``text`` stands in ``source``, by 64-bit
    hashes, ``[len(text) - length + 1]`` bool."""
    own, place = np.unique(_hashes(text, length), return_inverse=True)
    found = np.zeros(len(own), dtype=bool)
    rest = np.empty(0, dtype=text.dtype)
    for block in source():
        block = np.concatenate((rest, block))  # a substring may lie across two blocks
        if len(block) >= length:
            theirs = _hashes(block, length)
            at = np.searchsorted(own, theirs).clip(max=len(own) - 1)
            found[at[own[at] == theirs]] = True
        rest = block[max(0, len(block) - length + 1) :]
    return found[place]


def _hashes(points: np.ndarray, length: int) -> np.ndarray:
    """A hash of each substring of ``length`` code points, ``[n - length + 1]`` uint64: that of its
    first and last 2^k characters, which overlap, made by doubling."""
    a, b = (np.uint64(number) for number in MULTIPLIERS)
    hashes, width = _mixed(points.astype(np.uint64) + a), 1
    while width < length:
        step = min(width, length - width)
        hashes = _mixed(hashes[:-step] * a + hashes[step:] * b)
        width += step
    return hashes


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Spread every bit over all 64 (the finalizer of SplitMix64; Steele, Lea and Flood 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _lines(blocks: Iterable[np.ndarray]) -> Iterator[str]:
    """The lines of a text given in blocks, without their ends."""
    rest = ""
    for block in blocks:
        *lines, rest = (rest + text_of(block)).split("\n")
        yield from lines
    yield rest
