"""How much of one text stands in another word for word."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

NEWLINE = ord("\n")
RUN = 30  # characters; a shorter run in common is no sign of copying
Blocks = Callable[[], Iterable[np.ndarray]]  # a text's code points, from the beginning each time
MULTIPLIERS = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd: of SplitMix64 and of xxHash


@dataclass(frozen=True)
class Copied:
    """What a text has in common with its source."""

    n_chars: int
    longest: str  # the longest run of characters that stands in the source as well
    in_runs: np.ndarray  # whether a character is in a run of ``RUN`` or more, [n_chars] bool
    n_lines: int  # that are not empty
    n_copied_lines: int  # of those, which are a whole line of the source


def find_copied(text: np.ndarray, source: Blocks) -> Copied:
    """Compare the code points ``text`` ``[n_chars]`` with those of a source.

    The source may be much longer than memory: only the hashes of the text's own substrings are
    kept, and those of each block of the source are looked up among them.
    """
    found = np.zeros(max(len(text) - RUN + 1, 0), dtype=bool)
    if len(text) >= RUN:
        found = _stands_in(text, source, RUN)
    steps = np.zeros(len(text) + 1, dtype=np.int64)
    starts = found.nonzero()[0]
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + RUN, -1)
    lines = [line for line in _lines([text]) if line]
    own = set(lines)
    copied = own & {line for line in _lines(source()) if line in own}
    return Copied(
        len(text),
        _longest(text, source, RUN if found.any() else 0),
        steps[:-1].cumsum() > 0,
        len(lines),
        sum(line in copied for line in lines),
    )


def _longest(text: np.ndarray, source: Blocks, known: int) -> str:
    """The longest run in common, of at least ``known`` characters: found by bisection, since where
    a run is in common each part of it is."""
    most, first = len(text) + 1, 0  # a run of ``known`` is in common, none of ``most`` is
    if known:
        first = int(_stands_in(text, source, known).argmax())
    step = 2 * known or RUN - 1  # doubled until it is too long, since most runs are short
    while most - known > 1:
        length = min(step, most - 1) if most > len(text) else (known + most) // 2
        found = _stands_in(text, source, length)
        if found.any():
            known, first, step = length, int(found.argmax()), 2 * length
        else:
            most = length
    return "".join(map(chr, text[first : first + known]))


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


def _lines(blocks: Iterable[np.ndarray]) -> Iterator[bytes]:
    """The lines of a text given in blocks, without their ends, as bytes of code points."""
    rest = b""
    for block in blocks:
        ends = (block == NEWLINE).nonzero()[0]
        first = 0
        for end in ends.tolist():
            yield rest + block[first:end].tobytes()
            rest, first = b"", end + 1
        rest += block[first:].tobytes()
    yield rest
