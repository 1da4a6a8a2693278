"""What the command lines share: checked numbers, and errors that are one line."""

import argparse
import os
import sys
from collections.abc import Callable
from math import inf, nan
from typing import Any, NoReturn

from charrnn.errors import UserError

Kind = str | tuple[str, ...] | Callable[[str], Any]


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors; a flag is taken only when it is spelled out."""

    def __init__(self, description: str, **more: Any) -> None:
        super().__init__(description=description, allow_abbrev=False, **more)

    def flag(self, name: str, what: str, kind: Kind = "TEXT", default: Any = None) -> None:
        """Add a flag; its help is ``what`` it does and the default, where there is one.

        ``kind``: the choices, a function that converts, or what its text stands for in the help.
        """
        option = {str: "metavar", tuple: "choices"}.get(type(kind), "type")
        more = {option: kind}
        if default is not None:
            more["default"] = default
            what += f" (default: {default})"
        self.add_argument(name, help=what, **more)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists every flag)\n")


def number(
    kind: type, low: float = 0, high: float = inf, above: bool = False, below: bool = False
) -> Callable[[str], float]:
    """An argparse type: a number from ``low`` (or strictly above) to ``high`` (or below)."""
    noun = "a whole number" if kind is int else "a number"
    bounds = f"{'above' if above else 'at least'} {low}"
    if high < inf:
        bounds += f" and {'below' if below else 'at most'} {high}"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = nan
        at_end = (value == low and not above) or (value == high < inf and not below)
        if low < value < high or at_end:
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {noun} {bounds}")

    return parse


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call ``main`` and leave: 2 and one line on stderr for what a user can mend."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may not know every character
    try:
        status = main()
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        problem = str(error)
        if not isinstance(error, (UserError, OSError)):
            if not isinstance(error, MemoryError) and "memory" not in problem:
                raise
            problem = "not enough memory; ask for a smaller model or batch, or for fewer samples"
        print(f"{os.path.basename(sys.argv[0])}: error: {problem}", file=sys.stderr)
        sys.exit(2)
