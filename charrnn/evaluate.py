"""``python -m charrnn.evaluate``: how well a model predicts a text, as one JSON line."""

import json
import math
from typing import Any

from charrnn.checkpoint import load_dict, model_from
from charrnn.cli import Parser, number, run
from charrnn.corpus import load_corpus
from charrnn.data import split_text
from charrnn.device import pick_device
from charrnn.errors import UserError
from charrnn.model import evaluate


def parser() -> Parser:
    """Every flag with its default."""
    p = Parser("Print a model's cross-entropy on a text, one JSON line: loss (nats/char), bpc.")
    p.add_argument("--ckpt", default="rnn.net", metavar="FILE", help="the model (default: rnn.net)")
    p.add_argument(
        "--data",
        metavar="PATH",
        nargs="+",
        help="UTF-8 texts, a folder, or python-docs (default: data/anna.txt, downloaded once)",
    )
    p.add_argument(
        "--split",
        choices=("val", "all"),
        default="val",
        help="val: the end of the text that training held out; all: the whole text (default: val)",
    )
    p.add_argument(
        "--val-frac",
        type=number(float, 0, 1, above=True, below=True),
        help="share of the text that val is (default: what the model was trained with, else 0.1)",
    )
    p.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)"
    )
    return p


def val_frac_of(checkpoint: dict[str, Any]) -> float:
    """The share of its text that a model's training held out; 0.1 if it does not say."""
    val_frac = checkpoint.get("val_frac", 0.1)
    return val_frac if isinstance(val_frac, float) and 0 < val_frac < 1 else 0.1


def main() -> None:
    """Parse the command line and print the line."""
    args = parser().parse_args()
    device = pick_device(args.device)
    checkpoint = load_dict(args.ckpt)
    model = model_from(checkpoint, args.ckpt).to(device).eval()
    corpus = load_corpus(args.data)
    ids = corpus.ids
    if args.split == "val":
        _, ids = split_text(ids, args.val_frac or val_frac_of(checkpoint))
    ids = corpus.encode_for(model.unique_tokens, len(corpus.ids) - len(ids))
    if len(ids) < 2:
        raise UserError(f"{args.data}: {len(ids)} character; evaluating needs at least 2")
    loss = evaluate(model, ids)
    line = {"loss": loss, "bpc": loss / math.log(2), "chars": len(ids) - 1, "split": args.split}
    print(json.dumps(line))


if __name__ == "__main__":
    run(main)
