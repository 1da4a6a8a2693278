"""Which cells follow quotes, lines, brackets: a page as in Karpathy et al., arXiv:1506.02078."""

import torch
from torch import Tensor

from charrnn.cli import run
from charrnn.generation import Streams, decoder_of
from charrnn.model import CharRNN, from_row_above
from charrnn.page import SHADES, load, parser, shaded, write_page

READ, SHOWN, BEST = 50_000, 2_500, 3  # characters to choose by, and to show; cells of a property


@torch.no_grad()
def states(model: CharRNN, ids: Tensor) -> Tensor:
    """The last layer after each of ``ids``, ``[T, n_hidden]``: tanh(c) of an LSTM, else h."""
    n_rows = max(1, min(64, len(ids) // 256))
    rows = ids[: len(ids) // n_rows * n_rows].long().view(n_rows, -1).to(model.fc.weight.device)
    decoder, hidden = decoder_of(model, one_stream=False), model.init_hidden(n_rows)
    for _ in range(2):  # the second time each row starts from where the one above ended
        streams, kept = Streams(decoder, hidden), []
        for x in rows.T:
            decoder.step(x, streams)
            kept.append(streams.kept[-1].to("cpu", copy=True))
        hidden = from_row_above(streams.hidden())
    cells = torch.stack(kept, dim=1).flatten(0, 1).nan_to_num_()
    return cells.tanh_() if model.cell == "lstm" else cells


def properties(text: str) -> dict[str, Tensor]:
    """What a cell may follow, after each character ``[T]``; a blank line ends quotes, brackets."""
    quoted, column, depth, rows = False, 0, 0, []
    for before, char in zip("\n" + text, text, strict=False):
        column = 0 if char == "\n" else column + 1
        quoted, depth = (False, 0) if char == before == "\n" else (quoted, depth)
        quoted ^= char in '"\u201c\u201d\u201e\u00ab\u00bb'  # languages differ in which one opens
        depth = max(0, depth + (char in "([\uff08") - (char in ")]\uff09"))
        rows.append((quoted, column, depth > 0))
    names = ("inside quotes", "place in the line", "inside brackets")
    return dict(zip(names, torch.tensor(rows, dtype=torch.float32).T, strict=True))


def section(name: str, followed: Tensor, cells: Tensor, text: str) -> str:
    """The cells ``[T, n_hidden]`` that follow a property ``[T]`` best, printed and as HTML."""
    covariance = (followed - followed.mean()) @ cells / len(cells)
    r = covariance / (cells.std(0, correction=0) * followed.std(correction=0)).clamp(min=1e-6)
    best = r.abs().topk(min(BEST, len(r))).indices.tolist() if len(followed.unique()) > 1 else []
    found = ", ".join(f"cell {i} ({r[i]:+.3f})" for i in best) or "nothing to follow in this text"
    print(f"{name}: {found}")
    windows = [slice(i, i + SHOWN) for i in range(0, max(1, len(text) - SHOWN), SHOWN // 5)]
    shown = max(windows, key=lambda window: followed[window].std(correction=0).item())
    html = f"<h2>{name}</h2>\n" if best else f"<h2>{name}: {found}</h2>\n"
    for i in best:
        shades = (cells[shown, i] * SHADES).round().int().tolist()
        chars = zip(text[shown], shades, (followed[shown] == 1).tolist(), strict=True)
        coloured = (shaded(char, shade, ' class="u"' * holds) for char, shade, holds in chars)
        html += f'<h3>cell {i} ({r[i]:+.3f})</h3><div class="text">{"".join(coloured)}</div>\n'
    return html


def main() -> None:
    """Parse the command line, print the best cells, and write the page."""
    args, model, ids, title = load(parser(__doc__, "--out", "neurons.html"))
    cells = states(model, ids[:READ])
    text = "".join(model.int2char[i] for i in ids[: len(cells)].tolist())
    key = "".join(shaded(f"{k / SHADES:+.1f}", k) for k in range(-SHADES, SHADES + 1, 3))
    body = f"""<p>Of {model.n_hidden:,} cells in the last layer, those that correlate best (Pearson,
either sign) over {len(text):,} characters, shown where the property varies most. Underlined: where
it holds, or a line starts. A blank line is taken to end quotes and brackets.</p>
<p>{"tanh(c)" if model.cell == "lstm" else "h"}: {key}</p>\n"""
    body += "".join(section(name, p, cells, text) for name, p in properties(text).items())
    write_page(args.page, title, body, ".u { text-decoration: underline dotted; }")


if __name__ == "__main__":
    run(main)
