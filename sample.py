"""Generate text from a trained model: ``python sample.py --help`` explains every flag."""

import argparse
import codecs
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
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
from charrnn.device import DTYPES, pick_device, pick_dtype
from charrnn.errors import UserError
from charrnn.generation import default_prime, encode_prime, generate, read_prime
from charrnn.model import CharRNN

HELP = ":reset forgets what came before, :temp 0.7 sets the temperature, Ctrl-D ends"
BLOCK = 16  # characters between two writes: each one waits for the device


def parser() -> Parser:
    """Every flag with its default."""
    p = Parser("Generate text from a model that train.py made. Only the text goes to stdout.")
    whole, real, share = number(int, 0), number(float, 0), number(float, 0, 1, above=True)
    p.flag("--ckpt", "the model", "FILE", "rnn.net")
    p.flag("--prime", "text to go on from (default: a newline, or the most frequent character)")
    p.flag("--size", "new characters", whole, 1000)
    p.flag("--top-k", "draw from the K likeliest characters only; 0: from all", whole, 5)
    p.flag("--top-p", "draw from the fewest whose probabilities reach P; 1: from all", share, 1.0)
    p.flag("--temperature", "below 1 plays safe, above 1 takes risks, 0: the likeliest", real, 1.0)
    p.flag("--num-samples", "texts to generate", number(int, 1), 1)
    seed = number(int, 0, 2**63 - 1)
    p.flag("--seed", "makes the text repeatable (default: another each time)", seed)
    p.flag("--device", "auto, cpu, cuda, cuda:N or mps", "NAME", "auto")
    p.flag("--dtype", "precision of weights; auto: bfloat16 where it is fast", DTYPES, "auto")
    p.add_argument(
        "--interactive",
        action="store_true",
        help="read a prime per line and go on from it, remembering what came before",
    )
    p.flag("--out", "write the text there instead of to stdout", "FILE")
    return p


def write_samples(
    file: TextIO, prime: str, steps: Iterator[Tensor], decode: Callable[[Tensor], str]
) -> None:
    """Write the first stream as it comes, then the others, each on its own after a blank line."""
    file.write(prime)
    blocks: list[Tensor] = []
    while block := list(islice(steps, BLOCK)):
        blocks.append(torch.stack(block).cpu())
        file.write(decode(blocks[-1][:, 0]))
        file.flush()
    file.write("\n")
    for ids in torch.cat(blocks).T[1:] if blocks else ():
        file.write(f"\n{prime}{decode(ids)}\n")


def converse(
    model: CharRNN, size: int, options: dict[str, Any], show: Callable[[str], str]
) -> None:
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
                drawn = [id_ for ids in islice(steps, size) for id_ in ids.tolist()]
                text = prime + vocabulary.decode(drawn)
                print(show(text))
                ids = encode_prime(model, text)
                hidden = read_prime(model, ids.to(model.fc.weight.device), hidden)[1]
        except (UserError, argparse.ArgumentTypeError) as error:
            print(error, file=sys.stderr)


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
    # a terminal would obey control characters
    show = visible if sys.stdout.isatty() and args.out is None else str
    if args.interactive:
        converse(model, args.size, options, show)
        return
    prime = default_prime(model) if args.prime is None else args.prime
    steps = islice(generate(model, prime, args.num_samples, **options), args.size)
    vocabulary = Vocabulary(tuple(model.unique_tokens))
    with atomic_file(args.out) if args.out else nullcontext(sys.stdout.buffer) as file:
        text = codecs.getwriter("utf-8")(file, "backslashreplace")
        write_samples(text, show(prime), steps, lambda ids: show(vocabulary.decode(ids)))


if __name__ == "__main__":
    run(main)
