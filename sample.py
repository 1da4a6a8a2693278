"""Generate text from a trained model: ``python sample.py --help`` explains every flag."""

import charrnn.before_torch  # noqa: F401, before torch

# isort: split
import argparse
import codecs
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, BinaryIO, TextIO

from charrnn.errors import UserError
from charrnn.network.checkpoint import load_checkpoint
from charrnn.network.device import DTYPES, pick_device, pick_dtype
from charrnn.network.model import CharRNN
from charrnn.system.cli import Parser, command
from charrnn.system.console import Terminal, escape_control_chars, say
from charrnn.system.files import check_output, open_output, require_regular
from charrnn.writing.conversation import Conversation, converse
from charrnn.writing.generation import (
    RANGES,
    SIZE,
    bits_of,
    blocks,
    default_prime,
    generate_text,
    known_form,
    nearest_form,
    never_saw,
    unknown_characters,
)

REPLY = 300  # characters of a reply where the user does not say
Write = Callable[[str], object]


def parser() -> Parser:
    """Return the parser, with every flag and its default."""
    p = Parser("Generate text from a model that train.py made. Only text goes to stdout.")
    text = p.add_argument_group("text")
    text.add_argument("--ckpt", metavar="FILE", default="rnn.net", help="the model")
    prime = text.add_mutually_exclusive_group()
    prime.add_argument(
        "--prime",
        metavar="TEXT",
        help="text to go on from (default: a newline, or the most frequent character)",
    )
    prime.add_argument(
        "--prime-file", metavar="FILE", help="the same from a UTF-8 file, all of it; - is stdin"
    )
    prime.add_argument(
        "--primes",
        metavar="FILE",
        help="the same from each line of a UTF-8 file, in order: a text for each; - is stdin",
    )
    text.add_argument(
        "--stop",
        metavar="TEXT",
        action="append",
        help="end each text before the first place where it would write this; may be repeated",
    )
    text.add_argument(
        "--stop-after",
        metavar="TEXT",
        action="append",
        help="end each text after the first place where it writes this; may be repeated",
    )
    text.add_argument(
        "--escapes",
        action="store_true",
        help=r"read \n, \t, \\ and \uXXXX in --prime, --primes, --stop, --stop-after, --separator "
        "and --turn as Python does",
    )
    text.add_argument(
        "--size",
        metavar="N",
        type=RANGES["size"],
        help="new characters, fewer where a stop ends a text (default: 1000; 300 a reply in a "
        "conversation)",
    )
    drawing = p.add_argument_group("drawing")
    drawing.add_argument(
        "--top-k",
        metavar="N",
        type=RANGES["top_k"],
        help="draw from the N likeliest characters only; 0: from all (default: 5, with --top-p 0)",
    )
    drawing.add_argument(
        "--top-p",
        metavar="P",
        type=RANGES["top_p"],
        help="draw from the fewest characters whose probabilities reach P (default: 1, all)",
    )
    drawing.add_argument(
        "--temperature",
        metavar="T",
        type=RANGES["temperature"],
        default=1.0,
        help="below 1 plays safe, above 1 takes risks, 0: always the likeliest",
    )
    drawing.add_argument(
        "--seed",
        metavar="N",
        type=RANGES["seed"],
        help="repeats a text (default: another each time)",
    )
    output = p.add_argument_group("output")
    output.add_argument(
        "--num-samples",
        metavar="N",
        type=RANGES["num_samples"],
        default=1,
        help="texts (of each prime), with a line between them that says which is next",
    )
    output.add_argument("--only-new", action="store_true", help="write each text without its prime")
    output.add_argument(
        "--separator",
        metavar="TEXT",
        help="write this between two texts and nothing else, but for a line end after the last",
    )
    output.add_argument(
        "--json",
        action="store_true",
        help='a line of JSON for each text: {"prime", "text", "bits"}',
    )
    output.add_argument("--out", metavar="FILE", help="write there instead of to stdout")
    output.add_argument(
        "--interactive", action="store_true", help="a conversation: :help explains it"
    )
    output.add_argument(
        "--turn",
        metavar="TEXT",
        help=r"what stands around the {} that you type: --turn 'Me: {}\nAnna:' --escapes",
    )
    machine = p.add_argument_group("machine")
    machine.add_argument(
        "--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:N or mps"
    )
    machine.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="precision; auto: the fastest there"
    )
    return p


def unescape(text: str, flag: str) -> str:
    r"""Replace \n, \t, \\ and \uXXXX in ``text``. Raises UserError for any other backslash."""

    def char(found: re.Match[str]) -> str:
        kind = found[1]
        if kind[:1] == "u" and len(kind) == 5:
            return chr(int(kind[1:], 16))
        if kind not in ("n", "t", "\\"):
            raise UserError(rf"{flag}: {found[0]} is none of \n, \t, \\ and \uXXXX")
        return {"n": "\n", "t": "\t", "\\": "\\"}[kind]

    pairs = re.sub(r"\\(u[0-9a-fA-F]{4}|.?)", char, text, flags=re.DOTALL)
    return pairs.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def spelled(model: CharRNN, text: str, flag: str, escapes: bool, leave_out: bool = False) -> str:
    """Return the text given with a flag, in characters that the model knows.

    Raises UserError that names the flag if there are others; with ``leave_out`` they are left out
    and reported on stderr, unless nothing would be left.
    """
    meant = unescape(text, flag) if escapes else text
    form = known = nearest_form(model, meant)
    hint = r"; for \n to be a line end give --escapes" if "\\" in text and not escapes else ""
    strange = unknown_characters(model, form)
    if leave_out and not set(form) <= set(strange):
        known = "".join(char for char in form if char not in strange)
    try:
        known = known_form(model, known, flag)
    except UserError as error:
        raise UserError(f"{error}{hint}") from None
    if known != form:
        say(f"{flag}: {never_saw(model, strange)}; left out{hint}")
    if form != meant:
        say(f"{flag}: the model knows it in its other normal form (accents apart or joined): used")
    return known


def read_prime_file(path: str) -> str:
    """Return all of a UTF-8 file, FIFO or stdin (-), with line ends as \\n. Raises UserError or
    OSError."""
    if path != "-" and not (os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)):
        require_regular(path, "a UTF-8 text")
    try:
        source = 0 if path == "-" else path
        with open(source, encoding="utf-8-sig", closefd=source != 0) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def text_writer(file: BinaryIO | None) -> Write:
    """Return a function that writes text at once to ``file``, in UTF-8 whatever the locale.

    None stands for stdout; if that is a terminal, control characters are spelled out, since it
    would obey them. Raises UserError if stdout is closed.
    """
    show: Callable[[str], str] = str
    stream: TextIO | codecs.StreamWriter
    if file is None:
        if sys.stdout is None:
            raise UserError("stdout is closed; name a file with --out")
        sys.stdout.flush()
        if Terminal(sys.stdout).isatty():
            show = escape_control_chars
        file = getattr(sys.stdout, "buffer", None)
    stream = codecs.getwriter("utf-8")(file, "backslashreplace") if file is not None else sys.stdout

    def write(text: str) -> None:
        stream.write(show(text))
        stream.flush()

    return write


def title(model: CharRNN, number: int, num_samples: int) -> str:
    """Return the line before a text, made with a character that the model does not know."""
    rule = 8 * next((mark for mark in "=~\u2500\u2550" if mark not in model.char2int), "=")
    return f"{rule} sample {number:,} of {num_samples:,} {rule}\n"


def blocks_of(primes: list[str], num_samples: int, size: int) -> Iterator[tuple[range, list[str]]]:
    """Yield the numbers and the primes of the texts to write side by side: of each prime
    ``num_samples``, one after the other."""
    for numbers in blocks(len(primes) * num_samples, size):
        yield numbers, [primes[(number - 1) // num_samples] for number in numbers]


def write_texts(
    write: Write,
    model: CharRNN,
    primes: list[str],
    num_samples: int,
    only_new: bool,
    separator: str | None,
    **options: Any,
) -> None:
    """Write texts, each after its prime unless ``only_new``; a block's first one as it is drawn.

    ``separator`` stands between two of them (None: a line end and a ``title``). A line end follows
    the last text, unless a separator is given and the text ends with a line end.
    """
    total, shown = len(primes) * num_samples, ""

    def before(number: int) -> str:
        if number == 1:
            return ""
        return "\n" + title(model, number, total) if separator is None else separator

    for numbers, block in blocks_of(primes, num_samples, options["size"]):
        heads = ["" if only_new else prime for prime in block]
        write(before(numbers[0]) + heads[0])
        shown = heads[0]
        others = [[head] for head in heads[1:]]
        for first, *rest in generate_text(model, block, numbers=numbers, **options):
            write(first)
            shown = first or shown
            for pieces, piece in zip(others, rest, strict=True):
                pieces.append(piece)
        for number, pieces in zip(numbers[1:], others, strict=True):
            shown = "".join(pieces)
            write(before(number) + shown)
    if separator is None or not shown.endswith("\n"):
        write("\n")


def write_json(
    write: Write, model: CharRNN, primes: list[str], num_samples: int, **options: Any
) -> None:
    """Write a line of JSON for each text, with the bits that the model needs for it."""
    for numbers, block in blocks_of(primes, num_samples, options["size"]):
        drawn = zip(*generate_text(model, block, numbers=numbers, **options), strict=True)
        for prime, pieces in zip(block, drawn, strict=True):
            text = "".join(pieces)
            line = {"prime": prime, "text": text, "bits": bits_of(model, prime, text)}
            write(json.dumps(line, ensure_ascii=False) + "\n")


def known_primes(model: CharRNN, args: argparse.Namespace) -> list[str]:
    """Return the primes that the flags give, if any, in characters that the model knows.

    Raises UserError or OSError for a file that cannot be read, and UserError for a prime of which
    the model knows no character.
    """
    understand = partial(spelled, model, leave_out=True)
    if args.prime is not None:
        return [understand(args.prime, "--prime", args.escapes)]
    if args.prime_file is not None:
        return [understand(read_prime_file(args.prime_file), "--prime-file", escapes=False)]
    if args.primes is None:
        return []
    lines = read_prime_file(args.primes).removesuffix("\n").split("\n")
    return [
        understand(line, f"--primes, line {number}", args.escapes)
        for number, line in enumerate(lines, 1)
    ]


def check_combination(args: argparse.Namespace) -> None:
    """Raises UserError for flags that cannot be given together."""
    apart = args.only_new or args.separator is not None
    many = args.out is not None or args.primes is not None or args.num_samples > 1
    if args.interactive and (args.json or apart or many):
        raise UserError(
            "--interactive: leave out --out, --primes, --json, --num-samples, --only-new and "
            "--separator"
        )
    if args.json and apart:
        raise UserError(
            "--json: leave out --only-new and --separator; its lines have prime and new text apart"
        )
    if args.interactive and args.prime_file == "-":
        raise UserError("--prime-file -: a conversation reads stdin; name a file")
    if args.turn is not None and (not args.interactive or args.turn.count("{}") != 1):
        raise UserError("--turn: give it with --interactive, and with one {} in it")
    if args.out is not None:
        read = (args.ckpt, args.prime_file, args.primes)
        check_output(args.out, [path for path in read if path not in (None, "-")], special=True)


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write texts, or hold a conversation."""
    args = parser().parse_args(argv)
    check_combination(args)
    device = pick_device(args.device)
    model = load_checkpoint(args.ckpt, device)
    size, seed = args.size, args.seed
    if size is None:
        size = REPLY if args.interactive else SIZE
    if seed is None:
        seed = secrets.randbelow(2**63)  # chosen here, so that all blocks of texts have the same
    options = {
        "size": size,
        "stop": [spelled(model, text, "--stop", args.escapes) for text in args.stop or ()],
        "stop_after": [
            spelled(model, text, "--stop-after", args.escapes) for text in args.stop_after or ()
        ],
        "top_k": args.top_k,
        "top_p": args.top_p,
        "temperature": args.temperature,
        "seed": seed,
        "dtype": pick_dtype(args.dtype, device),
    }
    primes = known_primes(model, args)
    if args.interactive:
        around = (args.turn or "{}").split("{}")
        before, after = (
            spelled(model, text, "--turn", args.escapes) if text else "" for text in around
        )
        typed = partial(spelled, model, flag="the line", escapes=args.escapes, leave_out=True)
        write = text_writer(None)
        conversation = Conversation(model, options, write, typed, (before, after))
        converse(conversation, primes[0] if primes else None)
        return
    separator = args.separator
    if separator is not None and args.escapes:
        separator = unescape(separator, "--separator")
    elif separator is not None and "\\" in separator:
        say("--separator: a backslash is written as it is; for \\n to be a line end give --escapes")
    with open_output(args.out) if args.out is not None else nullcontext() as file:
        primes = primes or [default_prime(model)]
        write = text_writer(file)
        if args.json:
            write_json(write, model, primes, args.num_samples, **options)
        else:
            only_new = args.only_new
            write_texts(write, model, primes, args.num_samples, only_new, separator, **options)


if __name__ == "__main__":
    sys.exit(main())
