"""Which values a setting, a flag or a stored field may have."""

import argparse
import sys
from collections.abc import Container, Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from typing import Any

from charrnn.errors import UserError
from charrnn.system.console import brief

LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Number:
    """Which numbers a setting may have; both a flag's type and the check of a stored value."""

    kind: type  # int or float
    low: float = -inf
    high: float = inf
    exclusive_min: bool = False  # low itself is not allowed
    exclusive_max: bool = False

    def __contains__(self, value: object) -> bool:
        allowed = (int,) if self.kind is int else (int, float)
        if type(value) not in allowed or not -LARGEST <= value <= LARGEST:  # NaN neither
            return False
        above = value > self.low if self.exclusive_min else value >= self.low
        return above and (value < self.high if self.exclusive_max else value <= self.high)

    def __str__(self) -> str:
        words = ["a whole number" if self.kind is int else "a number"]
        if self.low > -inf:
            words.append(f"{'above' if self.exclusive_min else 'at least'} {self.low}")
        if self.high < inf:
            high = f"{'below' if self.exclusive_max else 'at most'} {self.high}"
            words.append(f"and {high}" if self.low > -inf else high)
        return " ".join(words)

    def __call__(self, text: str) -> float:
        """An argparse type. Raises ArgumentTypeError for what is no such number."""
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if value not in self:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is not {self}")
        return value


class AnyText:
    """The texts that can be a name, a prime or a path."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and 0 < len(value) < 100_000

    def __str__(self) -> str:
        return "a text of 1 to 99,999 characters"


class Texts:
    """A list of such texts."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, list) and len(value) > 0 and all(v in AnyText() for v in value)

    def __str__(self) -> str:
        return "a name, or a list of at least one"


def one_of(values: Container, default: Any = MISSING, optional: bool = False) -> Any:
    """A field whose value is one of ``values``, or None where it is ``optional``."""
    return field(default=default, metadata={"values": values, "optional": optional})


def check_fields(kind: type, values: Any, where: str) -> None:
    """Check ``values`` by the ``one_of`` metadata of a dataclass's fields.

    A field that is missing has its default, so that what an older version saved is good. Raises
    UserError that names ``where`` and the first value that is missing without having a default,
    unknown or not one of those allowed.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: not what train.py saves")
    known = {f.name: f for f in fields(kind) if "values" in f.metadata}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: {brief(name)} is no such name")
        check_value(name, value, known[name].metadata, where)
    for name, each in known.items():
        if name not in values and each.default is MISSING:
            raise UserError(f"{where}: {name} is missing")


def check_value(name: str, value: Any, rule: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a value that a field with this metadata cannot have."""
    allowed = rule["values"]
    is_choice = isinstance(allowed, (tuple, dict))
    # of a tuple or dict, 1 == True and an unhashable value are no members
    plain = type(value) in (bool, str) or not is_choice
    good = (value is None and rule["optional"]) or (plain and value in allowed)
    if not good:
        words = f"one of {', '.join(map(str, allowed))}" if is_choice else allowed
        raise UserError(f"{where}: {name} is {brief(value)}, not {words}")
