"""Print how well a model predicts a text, as lines of JSON, and make the page of its surprise."""

import codecs
import json
import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import torch

from charrnn.errors import UserError
from charrnn.network.evaluation import evaluate
from charrnn.network.loaded import LoadedModel, load_model
from charrnn.pages.inputs import Reader, add_reading_flags, in_form, read_text
from charrnn.pages.page import write_page
from charrnn.pages.surprise import predict, surprise_page
from charrnn.system.cli import Parser, command
from charrnn.system.files import check_output
from charrnn.system.values import Number
from charrnn.text.copied import RUN, find_copied
from charrnn.text.corpus import LARGEST_VOCABULARY, load_corpus
from charrnn.text.encodings import check_encoding, recognise
from charrnn.text.sources import read_stream
from charrnn.writing.generation import default_prime, next_char_probabilities
from charrnn.writing.words import N_WORDS, next_word_probabilities

MOST_SHOWN = 200  # characters of the longest copied run


def print_json(line: dict[str, Any]) -> None:
    """Print a line of JSON. Raises UserError for a loss that is not finite, which JSON cannot
    express."""
    if not all(math.isfinite(value) for value in line.values() if isinstance(value, float)):
        raise UserError("the model's weights are too large: its loss is not a number")
    print(json.dumps(line), flush=True)


def info_of(model: LoadedModel) -> dict[str, Any]:
    """Return what a checkpoint says about its run, as values that JSON has."""
    net = model.net
    about = {
        "ckpt": model.path,
        "cell": net.cell,
        "n_hidden": net.n_hidden,
        "n_layers": net.n_layers,
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "characters": len(net.unique_tokens),
    }
    left_out = {*about, "state_dict", "tokens"}
    rest = (item for item in model.checkpoint.items() if item[0] not in left_out)
    return about | {str(key): plain(value) for key, value in rest}


def plain(value: object, depth: int = 4) -> Any:
    """Return ``value`` if it is plain, else the name of its type, since the file may contain
    anything."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if depth and isinstance(value, dict):
        return {str(key): plain(each, depth - 1) for key, each in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [plain(each, depth - 1) for each in value]
    return f"<{type(value).__name__}>"


def score_line(reader: Reader, line: str, args: Namespace) -> None:
    """Print the loss of a line of text for each model, read as after a line end, as JSON.

    A character that a model never saw and has no U+FFFD for costs what the least likely one costs
    there, and is not read.
    """
    if args.end:  # score it as well
        line += "\n"
    form, unseen = reader.best_form(lambda: [line])
    points = np.concatenate(list(in_form([line], form)))
    for model, table in zip(reader.models, reader.tables, strict=True):
        net, ids = model.net, table[points]
        read = ids >= 0
        # one more at the end, so that the model says what it expects after the last character
        begin = net.char2int[default_prime(net)]
        found = predict(net, torch.from_numpy(np.concatenate(([begin], ids[read], [0]))))
        # of each character: how many are read before it, and with those what it costs
        before = read.cumsum() - read
        bits = np.where(read, found.bits[before], found.most_bits[before])
        total = math.fsum(bits.tolist())
        scored: dict[str, Any] = {"ckpt": model.path} if len(reader.models) > 1 else {}
        scored |= {"loss": None, "bpc": None, "bits": total, "chars": len(points)}
        if len(points):
            scored |= {"loss": total * math.log(2) / len(points), "bpc": total / len(points)}
        scored["unknown"] = sum(map(unseen.get, unseen.keys() - net.char2int.keys()))
        known = net.vocabulary.decode([begin, *ids[read].tolist()])
        if args.top:
            scored["top"] = dict(islice(next_char_probabilities(net, known).items(), args.top))
        if args.words:
            scored["words"] = next_word_probabilities(net, known, args.words)
        print_json(scored)


def lines_of_stdin(encoding: str) -> Iterator[str]:
    """Yield the lines of standard input as they arrive; bytes that cannot be decoded become U+FFFD.

    Raises UserError if it is closed or a device.
    """
    rest, decoder = "", None
    for raw in chain(read_stream(0, "--text -"), [b""]):
        decoder = decoder or codecs.getincrementaldecoder(recognise(raw, encoding))("replace")
        *lines, rest = (rest + decoder.decode(raw, final=not raw)).split("\n")
        yield from (line.removesuffix("\r") for line in lines)
    if rest:
        yield rest


def score_lines(models: list[LoadedModel], args: Namespace) -> None:
    """Print a line of JSON for each text, or for each line of standard input, and each model."""
    encoding, reader = check_encoding(args.encoding or "utf-8"), Reader(models)
    for line in lines_of_stdin(encoding) if args.text == ["-"] else args.text:
        score_line(reader, line, args)


def score_text(models: list[LoadedModel], args: Namespace) -> None:
    """Print a line of JSON for each model, and write the page."""
    text, losses = read_text(args, models, args.surprise), []
    for model, ids in zip(models, text.ids, strict=True):
        losses.append(loss := evaluate(model.net, ids))
        line: dict[str, Any] = {"ckpt": model.path} if len(models) > 1 else {}
        line |= {"loss": loss, "bpc": loss / math.log(2), "chars": len(ids) - 1}
        print_json(line | {"split": text.split, "text": text.name, "left_out": text.left_out})
    if args.surprise:
        write_page(args.surprise, surprise_page(models, text, losses))


def count_copied(path: str, args: Namespace) -> None:
    """Print how much of a file stands in the texts of ``--data`` word for word, as JSON.

    Raises UserError as ``load_corpus`` does.
    """
    file, source = (
        load_corpus(data, encoding=args.encoding or "utf-8", most_tokens=LARGEST_VOCABULARY)
        for data in ([path], args.data)
    )
    found = find_copied(np.concatenate(list(file.blocks())), source.blocks)
    print_json(
        {
            "file": path,
            "text": source.name,
            "chars": len(found.in_runs),
            "longest": len(found.longest),
            "longest_text": found.longest[:MOST_SHOWN],
            "copied": float(found.in_runs.mean()),  # share of characters in runs of RUN or more
            "lines": found.n_lines,
            "copied_lines": found.n_copied_lines,
        }
    )


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line, print the lines, and write the page."""
    p = Parser(__doc__)
    p.add_argument(
        "--ckpt", metavar="FILE", nargs="+", default=["rnn.net"], help="the model, or several"
    )
    add_reading_flags(p)
    p.add_argument(
        "--surprise",
        metavar="HTML",
        help="a page: the text coloured by surprise; with two models, by their difference",
    )
    p.add_argument(
        "--text",
        metavar="TEXT",
        action="append",
        help="score this line instead of --data (repeatable); -: each line of standard input",
    )
    top = Number(int, 0, 1000)
    likeliest = "with --text: the N likeliest next characters"
    p.add_argument("--top", metavar="N", type=top, default=0, help=likeliest)
    p.add_argument(
        "--words",
        metavar="N",
        type=N_WORDS,
        default=0,
        help="with --text: the N likeliest continuations up to the next space or line end, or "
        "fewer if they are hard to find",
    )
    p.add_argument("--end", action="store_true", help="with --text: score each line's end as well")
    p.add_argument(
        "--copied",
        metavar="FILE",
        help=f"how much of this file stands in --data word for word: the longest run, the share of "
        f"its characters in runs of {RUN} or more, and how many of its lines; reads no model",
    )
    p.add_argument("--info", action="store_true", help="print what the checkpoint says of its run")
    args = p.parse_args(argv)
    if args.surprise and len(args.ckpt) > 2:
        raise UserError(f"--surprise: {len(args.ckpt)} models; one, or two to compare")
    if args.copied is not None:
        if not args.data or args.text or args.surprise or args.info:
            raise UserError("--copied FILE needs --data, the text to look in, and nothing else")
        return count_copied(args.copied, args)
    if args.text and (args.data or args.surprise):
        raise UserError("--text is scored alone; leave out --data and --surprise")
    if (args.top or args.words or args.end) and not args.text:
        raise UserError("--top N, --words N and --end need --text, a line to score")
    if args.surprise is not None:
        check_output(args.surprise, inputs=[*args.ckpt, *(args.data or [])], special=True)
    models = [load_model(path, args.device) for path in args.ckpt]
    if args.info:
        for model in models:
            print_json(info_of(model))
    elif args.text:
        score_lines(models, args)
    else:
        score_text(models, args)


if __name__ == "__main__":
    sys.exit(main())
