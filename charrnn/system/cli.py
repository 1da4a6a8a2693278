"""What the command lines share: a parser, checked numbers, and errors that are one line."""

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

Main = Callable[[list[str] | None], int | None]


class HelpFormatter(argparse.HelpFormatter):
    """Adds each flag's default, where it has one that the help does not name already."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        named = "default" in text or action.default in (None, argparse.SUPPRESS, False)
        return text if named else f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors; a flag is taken only when it is spelled out, with ``_``
    for ``-`` too, and a near miss is answered with the flag that was meant."""

    def __init__(self, description: str, prog: str | None = None, **more: Any) -> None:
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        if prog is None and spec is not None and spec.name.startswith("charrnn"):
            prog = f"python -m {spec.name.removesuffix('.__main__')}"
        more = {"allow_abbrev": False, "formatter_class": HelpFormatter} | more
        super().__init__(prog, description=description, **more)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = sys.argv[1:] if args is None else args
        spelled = []
        for arg in args:
            flag, equals, value = arg.partition("=")
            hyphens = flag.replace("_", "-")
            spelled.append(
                hyphens + equals + value if hyphens in self._option_string_actions else arg
            )
        return super().parse_known_args(spelled, namespace)

    def error(self, message: str) -> NoReturn:
        flag = next((word.rstrip(":") for word in message.split() if word.startswith("--")), "")
        near = difflib.get_close_matches(flag.partition("=")[0], list(self._option_string_actions))
        if message.startswith("unrecognized") and near:
            message += f"; did you mean {near[0]}?"
        elif message.endswith("expected one argument"):
            message += f"; if its value begins with a hyphen, write {flag}=-x"
        raise UserError(f"{message} (--help lists every flag)")


def command(main: Main) -> Main:
    """Make ``main`` return an exit status: 2, and one line on stderr, for what a user can mend."""

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        status = 0
        try:
            status = main(argv) or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
        except BrokenPipeError:  # the reader of our output left, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return status
        except KeyboardInterrupt:
            return 130
        except (UserError, OSError, MemoryError, RuntimeError) as error:
            problem = str(error)
            if isinstance(error, OSError) and error.filename:
                problem = f"{error.filename}: {reason(error)}"
            if not isinstance(error, (UserError, OSError)):
                if not isinstance(error, MemoryError) and "memory" not in problem:
                    raise
                problem = "not enough memory; ask for a smaller model or batch, or fewer samples"
            name = os.path.basename(sys.argv[0] if sys.argv else "")
            say(f"{name}: error: {problem}".replace("\n", " "))
            return 2

    return run
