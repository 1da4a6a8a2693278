"""How well a model predicts a text: a line of JSON with loss (nats/char) and bpc, and a page."""

import json
import math
import unicodedata

import torch
from torch import Tensor

from charrnn.cli import run
from charrnn.model import CharRNN, evaluate
from charrnn.page import SHADES, escape, load, parser, shaded, write_page

SHOWN = 20_000  # characters on the page: about 2 MB
STYLE = """[data-g^="newline"]::before { content: "\u21b5"; opacity: 0.5; }
.text i:hover { outline: 2px solid; } .text i:hover::after { content: attr(data-g); position: fixed;
  right: 1rem; bottom: 1rem; padding: 1em; border: 1px solid; background: Canvas; }"""


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
