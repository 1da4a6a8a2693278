"""The shared parts of all command lines: a parser, and errors in one line."""

import argparse
import difflib
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from charrnn.errors import UserError
from charrnn.system.console import say
from charrnn.system.files import reason


class HelpFormatter(argparse.HelpFormatter):
    """Adds each flag's default to its help, if it has one and the help does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        named = "default" in text or action.default in (None, argparse.SUPPRESS, False)
        return text if named else f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """argparse with UserErrors. Flags cannot be abbreviated, but may be written with ``_`` for
    ``-``; the error for an unknown flag suggests a similar one."""

    def __init__(self, description: str, **more: Any) -> None:
        """``more`` are arguments of ``argparse.ArgumentParser``."""
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        if spec is not None and spec.name.startswith("charrnn"):
            more = {"prog": f"python -m {spec.name.removesuffix('.__main__')}"} | more
        more |= {"allow_abbrev": False, "formatter_class": HelpFormatter}
        super().__init__(description=description, **more)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = next((arg for arg in unknown if arg.startswith("--")), "").partition("=")[0]
            near = difflib.get_close_matches(flag, self._option_string_actions)
            meant = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return known

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        spelled = []
        for arg in sys.argv[1:] if args is None else args:
            flag, equals, value = arg.partition("=")
            hyphens = flag.replace("_", "-")
            is_flag = hyphens in self._option_string_actions
            if is_flag and value == "--":  # argparse would take it for the end of the flags
                self.error(f"{flag}: its value cannot be --; put another character before or after")
            spelled.append(hyphens + equals + value if is_flag else arg)
        return super().parse_known_args(spelled, namespace)

    def error(self, message: str) -> NoReturn:
        # argparse tells only in words that a value is missing: "argument --prime: expected one ..."
        if message.endswith(": expected one argument"):
            flag = message.removeprefix("argument ").partition(":")[0]
            message += f"; if its value begins with a hyphen, write {flag}=-x"
        raise UserError(f"{message} (--help lists every flag)")


def command(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """Return ``main`` as a program: it returns an exit status. Errors that a user can correct give
    status 2 and one line on stderr."""

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        status = 0
        try:
            status = main(argv) or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
        except BrokenPipeError:  # the reader of our output has ended, for example `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return status
        except KeyboardInterrupt:
            return 130
        except UserError as error:
            problem = str(error)
        except OSError as error:
            problem = f"{error.filename}: {reason(error)}" if error.filename else str(error)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            problem = "not enough memory; use a smaller model or batch, or fewer samples"
        name = os.path.basename(sys.argv[0] if sys.argv else "")
        say(f"{name}: error: {problem}".replace("\n", " "))
        return 2

    return run
