"""How well a model predicts a text: lines of JSON with the loss, and a page of its surprise."""

import json
import math
import sys
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

import torch

from charrnn.cli import Number, Parser, command
from charrnn.console import say
from charrnn.errors import UserError
from charrnn.evaluation import evaluate
from charrnn.files import check_output
from charrnn.generation import default_prime
from charrnn.page import write_page
from charrnn.reading import Model, add_reading_flags, load_model, read_corpus, read_text
from charrnn.surprise import predict, surprise_page


def print_json(line: dict[str, Any]) -> None:
    """A line of JSON. Raises UserError for a loss that is no number, which JSON has no word for."""
    if not all(math.isfinite(value) for value in line.values() if isinstance(value, float)):
        raise UserError("the model's weights are too large: its loss is not a number")
    print(json.dumps(line), flush=True)


def describe(model: Model) -> dict[str, Any]:
    """What a checkpoint says of its run, as values that JSON has."""
    net, known = model.net, model.checkpoint
    about = {
        "ckpt": model.path,
        "cell": net.cell,
        "n_hidden": net.n_hidden,
        "n_layers": net.n_layers,
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "characters": len(net.unique_tokens),
    }
    rest = (key for key in known if key not in about and key not in ("state_dict", "tokens"))
    return about | {str(key): plain(known[key]) for key in rest}


def plain(value: object, depth: int = 4) -> Any:
    """``value`` where it is plain, else what kind of thing it is: the file may hold anything."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if depth and isinstance(value, dict):
        return {str(key): plain(each, depth - 1) for key, each in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [plain(each, depth - 1) for each in value]
    return f"<{type(value).__name__}>"


def score_line(model: Model, line: str, top: int) -> dict[str, Any]:
    """The loss of a line of text that begins where a line does: after a newline, if the model has
    one. Characters that the model never saw are left out and counted."""
    net = model.net
    known = [char for char in line if char in net.char2int]
    ids = torch.tensor([net.char2int[char] for char in [default_prime(net), *known]])
    bits = predict(net, ids).bits.tolist() if known else []
    total = math.fsum(bits)
    scored: dict[str, Any] = {"loss": None, "bpc": None, "bits": total, "chars": len(known)}
    if known:
        scored |= {"loss": total * math.log(2) / len(known), "bpc": total / len(known)}
    scored["left_out"] = len(line) - len(known)
    if top:
        with torch.no_grad():
            logits, _ = net(ids[None].to(net.fc.weight.device), net.init_hidden(1))
        p, best = logits[-1].float().softmax(dim=0).topk(min(top, logits.shape[1]))
        likeliest = (net.unique_tokens[i] for i in best.tolist())
        scored["top"] = dict(zip(likeliest, p.tolist(), strict=True))
    return scored


def score_lines(model: Model, texts: list[str], top: int) -> None:
    """A line of JSON for each text, or for each line of standard input."""
    lines: Iterable[str] = texts
    if texts == ["-"]:
        lines = (line.removesuffix("\n") for line in sys.stdin)
    for line in lines:
        print_json(score_line(model, line, top))


def score_text(models: list[Model], args: Namespace) -> None:
    """A line of JSON for each model, and the page."""
    corpus = read_corpus(args, models)
    if args.surprise:
        inputs = [*args.ckpt, *corpus.paths]
        check_output(args.surprise, inputs=inputs, special=True)
    text = read_text(args, models, corpus)
    for note in text.notes:
        say(note)
    losses = []
    for model, ids in zip(models, text.ids, strict=True):
        losses.append(loss := evaluate(model.net, ids))
        line = {"ckpt": model.path} if len(models) > 1 else {}
        line |= {"loss": loss, "bpc": loss / math.log(2), "chars": len(ids) - 1}
        print_json(line | {"split": text.split, "text": text.name, "left_out": text.left_out})
    if args.surprise:
        write_page(args.surprise, surprise_page(models, text, losses))


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line, print the lines, and write the page."""
    p = Parser(__doc__)
    p.add_argument(
        "--ckpt", metavar="FILE", nargs="+", default=["rnn.net"], help="the model, or two"
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
    p.add_argument("--info", action="store_true", help="print what the checkpoint says of its run")
    args = p.parse_args(argv)
    if len(args.ckpt) > 2:
        raise UserError(f"--ckpt: {len(args.ckpt)} models; one, or two to compare")
    if args.text and (args.data or args.surprise):
        raise UserError("--text is scored alone; leave out --data and --surprise")
    if args.top and not args.text:
        raise UserError("--top N needs --text: the characters likely after it")
    if args.surprise is not None:
        check_output(args.surprise, inputs=[*args.ckpt, *(args.data or [])], special=True)
    models = [load_model(path, args.device) for path in args.ckpt]
    for model in models:
        if args.info:
            print_json(describe(model))
        elif args.text:
            score_lines(model, args.text, args.top)
    if not args.info and not args.text:
        score_text(models, args)


if __name__ == "__main__":
    sys.exit(main())
