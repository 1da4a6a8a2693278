"""Find which units of a model follow quotations, lines, words."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from charrnn.network.evaluation import read_rows
from charrnn.network.model import CharRNN
from charrnn.pages.page import SHADES
from charrnn.pages.properties import properties_of

READ = 50_000  # characters to choose by
SHIFTS = 20  # times by which a property is shifted to see what chance gives
LEAST_R, MARGIN = 0.4, 0.15  # a unit that follows correlates so much, and beats all else by so much
ENOUGH = 512  # untrained units, for the best of them to be no matter of luck
BEST = 3  # units of a property that are shown
EXCERPT, EXCERPTS = 360, 2  # characters of one, and how many
BACK = 80  # characters that it may begin earlier, at the start of a line


def states(model: CharRNN, ids: Tensor) -> np.ndarray:
    """Return the last layer after each of ``ids[:-1]``, ``[T - 1, n_hidden]``: tanh(c) of an LSTM,
    else h.

    The text is read in rows side by side, each after the characters that precede it.
    """
    units = np.empty((len(ids) - 1, model.n_hidden), np.float32)
    for _, places, hidden in read_rows(model, ids, shortest=256, at_a_time=1):
        last = (hidden[1].tanh() if model.has_cell_state else hidden)[-1]
        units[places[:, 0].numpy()] = last.float().nan_to_num().cpu().numpy()
    return units


@dataclass(frozen=True)
class Finding:
    """How well the units follow one property."""

    name: str
    values: np.ndarray  # [T]
    r: np.ndarray  # [n_hidden]: Pearson correlation of each unit
    shifted: float  # the best unit's, either sign, for the property at other times
    untrained: float  # that of a model of the same size before training

    @property
    def best(self) -> list[int]:
        """The units that follow best, either sign."""
        return np.argsort(-np.abs(self.r), kind="stable")[:BEST].tolist()

    @property
    def height(self) -> float:
        """The best unit's correlation, without its sign."""
        return float(np.abs(self.r).max())

    @property
    def baseline(self) -> float:
        """What it has to beat: the larger of the two correlations that it is compared with."""
        return max(self.shifted, self.untrained)

    @property
    def lead(self) -> float:
        """By how much the best unit beats the baseline."""
        return self.height - self.baseline

    @property
    def found(self) -> bool:
        """Whether that is clear enough to be called following."""
        return self.height >= LEAST_R and self.lead > MARGIN

    @property
    def anchor(self) -> str:
        """The id of its section on the page."""
        return self.name.replace(" ", "-")


def standardised(columns: np.ndarray) -> np.ndarray:
    """Return columns ``[T, N]`` with mean 0 and length 1, so that products are correlations.
    Constant columns become zeros."""
    columns = columns - columns.mean(axis=0)
    length = np.linalg.norm(columns, axis=0)
    return columns / np.where(length > 1e-6 * len(columns) ** 0.5, length, np.inf)


def find_units(units: np.ndarray, untrained: np.ndarray, text: str) -> list[Finding]:
    """Return what the units ``[T, n_hidden]`` follow, clearest first, of all properties that vary
    in the text.

    A correlation is compared with two baselines. One is chance: the same property shifted in time
    (np.roll, ``SHIFTS`` offsets). The other is an untrained model, whose units also reflect the
    last few characters.
    """
    units, untrained = standardised(units), standardised(untrained)
    shifts = [len(text) * k // (SHIFTS + 1) for k in range(1, SHIFTS + 1)]
    findings = []
    for name, values in properties_of(text).items():
        others = standardised(np.stack([np.roll(values, shift) for shift in shifts], axis=1))
        followed = standardised(values[:, None])
        r = (units.T @ followed)[:, 0]
        of_shifted = float(np.abs(units.T @ others).max())
        of_untrained = float(np.abs(untrained.T @ followed).max())
        findings.append(Finding(name, values, r, of_shifted, of_untrained))
    return sorted(findings, key=lambda finding: -finding.lead)


def untrained_states(model: CharRNN, ids: Tensor) -> np.ndarray:
    """Return ``states`` of untrained models of the same kind and size. Small models are several,
    since the best of few random units would be a matter of luck."""
    found = []
    for seed in range(max(1, min(8, -(-ENOUGH // model.n_hidden)))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = CharRNN(model.unique_tokens, model.n_hidden, model.n_layers, 0.0, model.cell)
        found.append(states(fresh.to(model.fc.weight.device).eval(), ids))
    return np.concatenate(found, axis=1)


def is_number(values: np.ndarray) -> bool:
    """Return whether a property has more values than yes and no."""
    return len(np.unique(values)) > 2


def spread(unit: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the 1st and 99th percentile of a unit's values. For a yes/no property both groups are
    measured separately, so that a rare property still widens the range."""
    sides = [unit] if is_number(values) else [unit[values == 0], unit[values == 1]]
    ends = np.array([np.quantile(side, (0.01, 0.99)) for side in sides if len(side)])
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def shades_of(unit: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a unit's values ``[T]`` as shades from -SHADES to SHADES, stretched over its own
    range."""
    low, high = spread(unit, values)
    middle, half = (low + high) / 2, max((high - low) / 2, 1e-9)
    return ((unit - middle) / half * SHADES).round().clip(-SHADES, SHADES).astype(int)


def excerpts(values: np.ndarray, text: str) -> list[slice]:
    """Return short parts of the text where the property changes most, each from the start of a line
    or a word, in the order of the text."""
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
