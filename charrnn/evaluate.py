"""How well a model predicts a text: a line of JSON with loss (nats/char) and bpc, and a page."""

import json
import math
import unicodedata
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor

from charrnn.checkpoint import check_writable, load_dict, model_from
from charrnn.cli import Parser, number, run
from charrnn.corpus import ANNA, load_corpus
from charrnn.data import split_text
from charrnn.device import pick_device
from charrnn.errors import UserError
from charrnn.model import CharRNN, evaluate
from charrnn.page import SHADES, escape, shaded, write_page

SHOWN = 20_000  # characters on the page: about 2 MB
STYLE = """[data-g^="newline"]::before { content: "\u21b5"; opacity: 0.5; }
.text i:hover { outline: 2px solid; } .text i:hover::after { content: attr(data-g); position: fixed;
  right: 1rem; bottom: 1rem; padding: 1em; border: 1px solid; background: Canvas; }"""


def parser(description: str, flag: str, page: str | None) -> Parser:
    """The flags of a program that has a model read a text and may write a page about it."""
    p = Parser(description)
    p.add_argument(flag, dest="page", default=page, metavar="HTML", help=f"page (default: {page})")
    p.flag("--ckpt", "the model", "FILE", "rnn.net")
    data = "UTF-8 texts, a folder, or python-docs (default: data/anna.txt, downloaded once)"
    p.add_argument("--data", metavar="PATH", nargs="+", help=data)
    p.flag("--split", "the end of the text that training held out, or all", ("val", "all"), "val")
    share = number(float, 0, 1, above=True, below=True)
    p.flag("--val-frac", "share that val is (default: as in training, else 0.1)", share)
    p.flag("--device", "auto, cpu, cuda, cuda:N or mps", "NAME", "auto")
    return p


def val_frac_of(checkpoint: dict[str, Any]) -> float:
    """The share of its text that a model's training held out; 0.1 if it does not say."""
    val_frac = checkpoint.get("val_frac", 0.1)
    return val_frac if isinstance(val_frac, float) and 0 < val_frac < 1 else 0.1


def load(p: Parser) -> tuple[Namespace, CharRNN, Tensor, str]:
    """The flags, a model, its ids of a text ``[T]``, and a title. Raises UserError: T below 2."""
    args = p.parse_args()
    if args.page is not None:
        check_writable(args.page)
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
    return args, model, ids, f"{args.ckpt} reading {' '.join(args.data or [str(ANNA)])}"


def name_of(char: str) -> str:
    """``char``, or its name where it cannot be seen or would act on what stands beside it."""
    if unicodedata.category(char)[0] in "LNPS":
        return f"\u2068{char}\u2069"  # isolated: right-to-left ends with it
    return {"\n": "newline"}.get(char) or unicodedata.name(char, f"U+{ord(char):04X}").lower()


@torch.no_grad()
def heatmap(model: CharRNN, ids: Tensor, loss: float) -> str:
    """A page's body: ``ids`` in a row, shaded by surprise; ``loss`` is that of all, in nats."""
    names = [escape(name_of(token)) for token in model.unique_tokens]
    head, hidden = ids[:SHOWN].long(), model.init_hidden(1)
    shown = shaded(model.int2char[int(head[0])], 0)  # nothing was expected there
    for x, y in zip(head[:-1].split(256), head[1:].split(256), strict=True):
        logits, hidden = model(x[None].to(model.fc.weight.device), hidden)
        log_p = logits.float().cpu().log_softmax(dim=1)
        bits = log_p.gather(1, y[:, None])[:, 0].abs() / math.log(2)
        shades = bits.nan_to_num(SHADES).clamp(max=SHADES).int()  # one for each bit
        columns = (y, bits, shades, *log_p.exp().topk(min(5, len(names))))
        for i, b, shade, p, best in zip(*(column.tolist() for column in columns), strict=True):
            card = f"{names[i]}: {b:.2f} bits, {2**-b:.1%}\n"
            card += "".join(f"\n{q:6.1%} {names[j]}" for q, j in zip(p, best, strict=True))
            shown += shaded(model.int2char[i], shade, f' data-g="{card}"')
    key = "".join(shaded(str(k), k) for k in range(SHADES)) + shaded("9 or more", SHADES)
    return f"""<p>{loss / math.log(2):.4f} bits ({loss:.4f} nats) per character over all of
{len(ids):,} characters. Here are the first {len(head):,}: point at one to see what the
model expected there.</p><p>bits of surprise: {key}</p><div class="text">{shown}</div>"""


def main() -> None:
    """Parse the command line, print the line, and write the page."""
    args, model, ids, title = load(parser(__doc__, "--heatmap", None))
    loss = evaluate(model, ids)
    line = {"loss": loss, "bpc": loss / math.log(2), "chars": len(ids) - 1, "split": args.split}
    print(json.dumps(line), flush=True)
    if args.page is not None:
        write_page(args.page, title, heatmap(model, ids, loss), STYLE)


if __name__ == "__main__":
    run(main)
