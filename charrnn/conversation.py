"""Lines typed -> replies, each going on from all that came before."""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from charrnn.console import Terminal, say
from charrnn.errors import UserError
from charrnn.generation import (
    RANGES,
    default_prime,
    encode_opening,
    encode_prime,
    generate_text,
    read_prime,
)
from charrnn.model import CharRNN, Hidden

COMMANDS = {":size": "size", ":temp": "temperature", ":top-k": "top_k", ":top-p": "top_p"}
HELP = """A line is read, and the model goes on from it; Enter alone goes on from the reply. A line
that is to begin with a colon is typed with two. :size 300, :temp 0.7, :top-k 5, :top-p 0.9 (which
sets :top-k 0) and :seed 1 do what the flags of these names do. :reset forgets all that was read and
written, :help shows this, :quit or Ctrl-D ends.
"""


class Conversation:
    """What was read and written so far, and how to go on."""

    def __init__(
        self,
        model: CharRNN,
        options: dict[str, Any],
        write: Callable[[str], None],
        understand: Callable[[str], str],
    ) -> None:
        """``options``: as ``generate_text`` takes them; what is typed goes through ``understand``,
        and what is written to ``write``."""
        self.model, self.options, self.write, self.understand = model, options, write, understand
        self.hidden: Hidden | None = None
        self.last = ""  # character, which the state does not know yet

    def take(self, line: str) -> bool:
        """Do what a line asks for; False ends. Raises UserError for what cannot be done."""
        name, _, value = line.partition(" ")
        if name == ":quit":
            return False
        if name == ":reset":
            self.hidden, self.last = None, ""
        elif name in COMMANDS or name == ":seed":
            self.set(COMMANDS.get(name, "seed"), value)
        elif line.startswith(":") and not line.startswith("::"):
            say(HELP.rstrip("\n"))
        else:
            self.reply(self.understand(line.removeprefix(":")) if line else "")
        return True

    def set(self, name: str, value: str) -> None:
        """Set an option for the replies to come. Raises UserError for a value out of range."""
        try:
            number = RANGES[name](value.strip())
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{name}: {error}") from None
        if name == "seed":
            self.options["generator"].manual_seed(number)
        else:
            self.options[name] = number
        if name == "top_p":  # as with the flags: given alone it is not narrowed by top_k
            self.options["top_k"] = 0

    def reply(self, text: str) -> None:
        """Go on from ``text``, or without it from the last character; ends with a line end."""
        self.write(text)
        everything = self.last + text or default_prime(self.model)
        pieces = generate_text(self.model, everything, hidden=self.hidden, **self.options)
        for (piece,) in pieces:
            self.write(piece)
            everything += piece
        if not everything.endswith("\n"):
            self.write("\n")
        encode = encode_opening if self.hidden is None else encode_prime
        before, self.last = encode(self.model, everything)[:, :-1], everything[-1]
        if before.numel():
            self.hidden = read_prime(self.model, before, self.hidden)[1]


def converse(conversation: Conversation, first: str | None = None) -> None:
    """Read lines from stdin, after ``first``, until it ends. Raises UserError where there is none.

    Mistakes are said on stderr, and so is the prompt unless a terminal shows what is typed.
    """
    if sys.stdin is None:
        raise UserError("stdin is closed: a conversation reads from it")
    terminal = Terminal(sys.stdin).isatty() and Terminal(sys.stdout).isatty()
    if terminal:
        with suppress(ImportError):  # on Windows; elsewhere it gives input() a history
            import readline  # noqa: F401
    errors = Terminal(sys.stderr)
    say(":help shows what can be typed here")
    goes_on, line = True, first
    while goes_on:
        try:
            if line is None:
                if not terminal:
                    errors.write("> ")
                line = input("> " if terminal else "")
            goes_on = conversation.take(line)
        except EOFError:
            errors.write("\n")
            return
        except UnicodeDecodeError:
            raise UserError("stdin: not UTF-8; type or pipe UTF-8 text") from None
        except UserError as error:
            say(str(error))
        line = None
