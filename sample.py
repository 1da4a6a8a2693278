"""Generate text from a trained model: ``python sample.py --help`` explains every flag."""

import argparse
import codecs
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, TextIO

with suppress(ImportError):  # on Windows
    import readline  # noqa: F401 (gives input() a history)

import torch
from torch import Tensor

from charrnn.checkpoint import atomic_file, check_writable, load_checkpoint
from charrnn.cli import Parser, number, run
from charrnn.console import visible
from charrnn.data import Vocabulary
from charrnn.device import pick_device, pick_dtype
from charrnn.errors import UserError
from charrnn.generation import default_prime, encode_prime, generate, read_prime
from charrnn.model import CharRNN

HELP = ":reset forgets what came before, :temp 0.7 sets the temperature, Ctrl-D ends"
BLOCK = 16  # characters between two writes: each one waits for the device


def parser() -> Parser:
    """Every flag with its default."""
    p = Parser("Generate text from a model that train.py made. Only the text goes to stdout.")
    p.add_argument("--ckpt", default="rnn.net", metavar="FILE", help="the model (default: rnn.net)")
    p.add_argument(
        "--prime",
        metavar="TEXT",
        help="text to go on from (default: a newline, or the model's most frequent character)",
    )
    p.add_argument(
        "--size", type=number(int, 0), default=1000, help="new characters (default: 1000)"
    )
    p.add_argument(
        "--top-k",
        type=number(int, 0),
        default=5,
        help="draw from the K likeliest characters only; 0: from all (default: 5)",
    )
    p.add_argument(
        "--top-p",
        type=number(float, 0, 1, above=True),
        default=1.0,
        help="draw from the fewest characters whose probabilities reach P (default: 1, all)",
    )
    p.add_argument(
        "--temperature",
        type=number(float, 0),
        default=1.0,
        help="below 1 plays safe, above 1 takes risks, 0 always takes the likeliest (default: 1)",
    )
    p.add_argument(
        "--num-samples", type=number(int, 1), default=1, help="texts to generate (default: 1)"
    )
    p.add_argument(
        "--seed",
        type=number(int, 0, 2**63 - 1),
        help="makes the text repeatable (default: another text each time)",
    )
    p.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)"
    )
    p.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="precision of the weights; auto: bfloat16 where the hardware has it (default: auto)",
    )
    p.add_argument(
        "--raw",
        action="store_true",
        help="print control characters as they are even to a terminal, which obeys them",
    )
    p.add_argument(
        "--interactive",
        action="store_true",
        help="read a prime per line and go on from it, remembering what came before",
    )
    p.add_argument("--out", metavar="FILE", help="write the text there instead of to stdout")
    return p


def write_samples(
    file: TextIO,
    prime: str,
    vocabulary: Vocabulary,
    steps: Iterator[Tensor],
    size: int,
    show: Callable[[str], str],
) -> None:
    """Write the first stream as it comes, then the others, each on its own after a blank line."""
    file.write(show(prime))
    blocks: list[Tensor] = []
    limited = islice(steps, size)
    while block := list(islice(limited, BLOCK)):
        blocks.append(torch.stack(block).cpu())
        file.write(show(vocabulary.decode(blocks[-1][:, 0])))
        file.flush()
    file.write("\n")
    for ids in torch.cat(blocks).T[1:] if blocks else ():
        file.write(f"\n{show(prime + vocabulary.decode(ids))}\n")


def converse(model: CharRNN, args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Read a prime per line and go on from it, remembering all that was read and written."""
    vocabulary, hidden = Vocabulary(tuple(model.unique_tokens)), None
    print(HELP, file=sys.stderr)
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        try:
            prime = input()
        except EOFError:
            return
        command, _, value = prime.partition(" ")
        try:
            if command == ":reset":
                hidden = None
            elif command == ":temp":
                options["temperature"] = number(float, 0)(value)
            elif prime.startswith(":"):
                print(HELP, file=sys.stderr)
            else:
                steps = generate(model, prime, hidden=hidden, **options)
                drawn = [id_ for ids in islice(steps, args.size) for id_ in ids.tolist()]
                print(shown(prime + vocabulary.decode(drawn), args))
                ids = encode_prime(model, prime + vocabulary.decode(drawn))
                hidden = read_prime(model, ids.to(model.fc.weight.device), hidden)[1]
        except (UserError, argparse.ArgumentTypeError) as error:
            print(error, file=sys.stderr)


def shown(text: str, args: argparse.Namespace) -> str:
    """``text`` as stdout may have it: harmless to a terminal."""
    return visible(text) if sys.stdout.isatty() and not args.raw else text


def main() -> None:
    """Parse the command line and print samples."""
    args = parser().parse_args()
    if args.out is not None:
        check_writable(args.out)
    device = pick_device(args.device)
    model = load_checkpoint(args.ckpt, device)
    generator = torch.Generator(device)
    generator.manual_seed(args.seed) if args.seed is not None else generator.seed()
    options = {name: getattr(args, name) for name in ("top_k", "top_p", "temperature")}
    options |= {"generator": generator, "dtype": pick_dtype(args.dtype, device)}
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    if args.interactive:
        converse(model, args, options)
        return
    prime = default_prime(model) if args.prime is None else args.prime
    steps = generate(model, prime, args.num_samples, **options)
    vocabulary = Vocabulary(tuple(model.unique_tokens))
    if args.out is None:
        show = partial(shown, args=args)
        write_samples(sys.stdout, prime, vocabulary, steps, args.size, show)
    else:
        with atomic_file(args.out) as file:
            text = codecs.getwriter("utf-8")(file)
            write_samples(text, prime, vocabulary, steps, args.size, str)


if __name__ == "__main__":
    run(main)
