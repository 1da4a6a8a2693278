"""What the programs that write HTML pages share: their flags, a model reading a text, and the
pages: one file each, light and dark, no script, nothing loaded."""

import html
from argparse import Namespace
from typing import Any

from torch import Tensor

from charrnn.checkpoint import atomic_file, check_writable, load_dict, model_from
from charrnn.cli import Parser, number
from charrnn.console import visible
from charrnn.corpus import ANNA, load_corpus
from charrnn.data import split_text
from charrnn.device import pick_device
from charrnn.errors import UserError
from charrnn.model import CharRNN

SHADES = 9  # from -9, cold, to 9, hot; text stays readable on each, light or dark
STYLE = """:root { color-scheme: light dark; background: Canvas; overflow-wrap: anywhere; }
body { margin: 2rem auto 10rem; max-width: 60rem; padding: 0 1rem; font: 1rem/1.5 system-ui; }
.text { font: 0.9rem/1.6 ui-monospace, monospace; white-space: pre-wrap; unicode-bidi: plaintext; }
i { font-style: normal; background: rgb(230 90 20 / calc(var(--shade) * 8%))
  linear-gradient(rgb(50 120 255 / calc(var(--shade) * -8%)) 0 0); } p i { padding: 0.5em; }"""


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


def escape(text: str) -> str:
    """``text`` for an element or a quoted attribute; control characters are spelled out."""
    return html.escape(visible(text))


def shaded(text: str, shade: int, attributes: str = "") -> str:
    """An element with ``text`` on a background from cold (-SHADES) to hot (SHADES)."""
    return f'<i style="--shade: {shade}"{attributes}>{escape(text)}</i>'


def write_page(path: str, title: str, body: str, style: str = "") -> None:
    """``title`` is any text, ``body`` HTML. Raises UserError when the disk refuses."""
    page = f"""<!DOCTYPE html><html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>
<style>{STYLE}\n{style}</style><h1>{escape(title)}</h1>\n{body}"""
    try:
        with atomic_file(path) as file:
            file.write(page.encode("utf-8", "backslashreplace"))  # lone surrogates are spelled out
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
