"""Lines typed -> replies, each of which continues all that came before."""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

from charrnn.errors import UserError
from charrnn.network.model import CharRNN, Hidden
from charrnn.system.console import Terminal, say
from charrnn.writing.generation import (
    RANGES,
    StoppedText,
    default_prime,
    encode_opening,
    encode_prime,
    generate,
    read_prime,
)

COMMANDS = {":size": "size", ":temp": "temperature", ":top-k": "top_k", ":top-p": "top_p"}
HELP = """The model continues the line that you type; Enter alone continues the reply. Type two
colons to begin a line with one. :size 300, :temp 0.7, :top-k 5, :top-p 0.9 (which sets :top-k 0)
and :seed 1 do what the flags of these names do. :reset forgets all that was read and written,
:help shows this, :quit or Ctrl-D ends.
"""


class Conversation:
    """A model that has read and written a text so far, and the options for its replies."""

    def __init__(
        self,
        model: CharRNN,
        options: dict[str, Any],
        write: Callable[[str], object],
        understand: Callable[[str], str],
        turn: tuple[str, str] = ("", ""),
    ) -> None:
        """``options``: as ``generate_text`` takes them. A line that is typed goes through
        ``understand`` and between the two of ``turn``; texts are given to ``write``."""
        self.model, self.options, self.write, self.understand = model, options, write, understand
        self.before, self.after = turn
        self.replies = 0  # since the seed was set; reply n has the random numbers of text n
        self.forget()

    def forget(self) -> None:
        """Begin again, as if nothing had been read or written."""
        self.hidden: Hidden | None = None  # the state before the last character
        self.last = ""  # character
        self.unseen = ""  # the stop that ended the last reply: read, but not shown

    def take(self, line: str) -> bool:
        """Carry out a command, or reply to any other line. Return False at the end of the
        conversation. Raises UserError for a value or a character that is not possible."""
        name, _, value = line.partition(" ")
        if name == ":quit":
            return False
        if name == ":reset":
            self.forget()
        elif name in COMMANDS or name == ":seed":
            self.set(COMMANDS.get(name, "seed"), value)
        elif line.startswith(":") and not line.startswith("::"):
            say(HELP.rstrip("\n"))
        else:
            typed = self.understand(line.removeprefix(":")) if line else ""
            self.reply(self.before + typed + self.after if line else "")
        return True

    def set(self, name: str, value: str) -> None:
        """Set an option for later replies. Raises UserError for a value out of range."""
        try:
            number = RANGES[name](value.strip())
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{name}: {error}") from None
        self.options[name] = number
        if name == "seed":
            self.replies = 0
        if name == "top_p":  # given alone, as the flag is, it is not narrowed by top_k
            self.options["top_k"] = 0

    def reply(self, text: str) -> None:
        """Write ``text`` and a reply to it, or if it is empty continue the last reply; then a line
        end, unless there is one.

        The model reads all characters that it draws, and so the stop that ends its reply, too.
        """
        self.write(text)
        start = self.last + self.unread(text) or default_prime(self.model)
        options = dict(self.options)
        size = options.pop("size")
        reply = StoppedText(options.pop("stop"), options.pop("stop_after", ()))
        self.replies += 1
        number = range(self.replies, self.replies + 1)
        drawn = shown = ""
        for ids in islice(generate(self.model, start, number, hidden=self.hidden, **options), size):
            drawn += self.model.int2char[int(ids)]
            piece = reply.add(drawn[-1])
            self.write(piece)
            shown += piece
            if not reply.goes_on:
                break
        self.write(reply.held)
        shown += reply.held
        self.unseen = drawn[len(shown) :]
        if not (text + shown).endswith("\n"):
            self.write("\n")
        encode = encode_opening if self.hidden is None else encode_prime
        before, self.last = encode(self.model, start + drawn)[:, :-1], (start + drawn)[-1]
        if before.numel():
            self.hidden = read_prime(self.model, before, self.hidden)[1]

    def unread(self, text: str) -> str:
        """Return the part of ``text`` that the model has not read yet.

        The stop that ended the last reply may be the beginning of ``text``, such as the name before
        a turn. A line end comes first if a turn would begin in the middle of a line.
        """
        overlap = next(n for n in range(len(text), -1, -1) if self.unseen.endswith(text[:n]))
        mid_line = self.last not in ("", "\n") and "\n" in self.model.char2int
        if text and self.before and mid_line and not overlap:
            return "\n" + text
        return text[overlap:]


def converse(conversation: Conversation, prime: str | None = None) -> None:
    """Reply to ``prime``, if it is given, then to each line of stdin until it ends.

    Raises UserError if stdin is closed or not UTF-8.

    Mistakes are reported on stderr, where the prompt is written as well unless stdin and stdout are
    terminals.
    """
    if sys.stdin is None:
        raise UserError("stdin is closed: a conversation reads from it")
    terminal = Terminal(sys.stdin).isatty() and Terminal(sys.stdout).isatty()
    if terminal:
        with suppress(ImportError):  # on Windows; elsewhere it gives input() a history
            import readline  # noqa: F401
    errors = Terminal(sys.stderr)
    say(":help shows what can be typed here")
    if prime is not None:
        conversation.reply(prime)
    goes_on = True
    while goes_on:
        try:
            if not terminal:
                errors.write("> ")
            goes_on = conversation.take(input("> " if terminal else ""))
        except EOFError:
            errors.write("\n")
            return
        except UnicodeDecodeError:
            raise UserError("stdin: not UTF-8; type or pipe UTF-8 text") from None
        except UserError as error:
            say(str(error))
