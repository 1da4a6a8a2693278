"""Rules for the values that a setting, a flag or a stored field may have."""

import argparse
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from typing import Any

from charrnn.errors import UserError
from charrnn.system.console import brief


@dataclass(frozen=True)
class Number:
    """The finite numbers between two limits: a rule, and the type of a flag for argparse."""

    kind: type  # int or float
    low: float = -inf
    high: float = inf
    exclusive_min: bool = False  # low itself is not allowed
    exclusive_max: bool = False

    def __contains__(self, value: Any) -> bool:
        allowed = (int,) if self.kind is int else (int, float)
        if type(value) not in allowed or not abs(value) <= sys.float_info.max:  # True for NaN, too
            return False
        above = value > self.low if self.exclusive_min else value >= self.low
        return above and (value < self.high if self.exclusive_max else value <= self.high)

    def __str__(self) -> str:
        limits = []
        if self.low > -inf:
            limits.append(f"{'above' if self.exclusive_min else 'at least'} {self.low}")
        if self.high < inf:
            limits.append(f"{'below' if self.exclusive_max else 'at most'} {self.high}")
        kind = "a whole number" if self.kind is int else "a number"
        return f"{kind} {' and '.join(limits)}".rstrip()

    def __call__(self, text: str) -> float:
        """Return the number that ``text`` spells. Raises ArgumentTypeError if it is not allowed."""
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if value not in self:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is not {self}")
        return value


@dataclass(frozen=True)
class Rule:
    """The values for which ``allows`` is true; ``words`` describe them in messages."""

    allows: Callable[[Any], bool]
    words: str

    def __contains__(self, value: object) -> bool:
        return self.allows(value)

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Choice:
    """The names in a collection, which may grow later, for example that of the cells."""

    names: Collection[str]

    def __contains__(self, value: object) -> bool:
        return type(value) is str and value in self.names

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}"


TEXT = Rule(
    lambda v: isinstance(v, str) and 0 < len(v) < 100_000, "a text of 1 to 99,999 characters"
)
TEXTS = Rule(
    lambda v: isinstance(v, list) and len(v) > 0 and all(each in TEXT for each in v),
    "a name, or a list of at least one",
)
TRUE_OR_FALSE = Rule(lambda v: type(v) is bool, "True or False")


def one_of(
    values: Number | Rule | Choice, default: Any = MISSING, optional: bool = False, **more: Any
) -> Any:
    """Return a dataclass field whose values obey a rule, or which may be None if ``optional`` is
    true or None is the default. ``more`` is put into the field's metadata."""
    optional = optional or default is None
    return field(default=default, metadata={"values": values, "optional": optional, **more})


def check_fields(kind: type, values: Any, where: str) -> None:
    """Check a dict of values by the rules of a dataclass's fields.

    A field without a value has its default, so that files of older versions can be loaded. Raises
    UserError that names ``where`` and the first value that is unknown, not allowed, or missing
    without a default.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: not what train.py saves")
    known = {f.name: f for f in fields(kind) if "values" in f.metadata}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: {brief(name)} is not a known name")
        check_value(name, value, known[name].metadata, where)
    for name, each in known.items():
        if name not in values and each.default is MISSING:
            raise UserError(f"{where}: {name} is missing")


def check_value(name: str, value: Any, rule: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a value that a field with this metadata cannot have."""
    if value not in rule["values"] and not (value is None and rule["optional"]):
        raise UserError(f"{where}: {name} is {brief(value)}, not {rule['values']}")
