"""Print how good held-out losses are: those of PPMd, of the notebook's recipe and of models of
train.py, on the same last part of the same text.

Run ``python -m benchmarks.anchors --ckpt rnn.net --minutes 2``; PPMd needs the package pyppmd.

PPMd is a compressor that goes on learning while it reads the held-out text. Our models do not, and
the figure that we quote is the one in the column "plain". The other column is for the same models
when they, too, learn from each segment after it has been scored: dynamic evaluation (Krause et al.
2018, arXiv:1709.07432). The two columns must not be compared with each other.
"""

import math
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import find_text, machine, table
from benchmarks.equal_time import theirs
from charrnn import CharRNN, evaluate
from charrnn.errors import UserError
from charrnn.network.checkpoint import build_model, load_dict
from charrnn.network.device import pick_device
from charrnn.network.model import detach
from charrnn.system.cli import Parser, command
from charrnn.text.corpus import Corpus, load_corpus
from charrnn.text.split import split_text

try:
    import pyppmd
except ImportError:
    pyppmd = None

NO_PPMD = """PPMd is left out: no pyppmd here. It is no requirement; for this once:
    pip install --target DIR pyppmd; PYTHONPATH=DIR python -m benchmarks.anchors ..."""
ORDERS = (4, 6, 8)
MEMORY = 1 << 28  # bytes: PPMd forgets all once they are full
EPSILON = 1.0  # times the mean rms of all weights, added to what a gradient is divided by


def ppmd_loss(coder: ModuleType, corpus: Corpus, held_out: Tensor, order: int) -> float:
    """Return PPMd's loss on the held-out text, in nats per character (variant H, Shkarin 2002).

    It is the length of the code for the whole text minus that for the text before ``held_out``,
    which must be the end of the corpus.
    """

    def size(ids: Tensor) -> int:
        encoder = coder.Ppmd7Encoder(order, MEMORY)
        text = corpus.vocabulary.decode(ids).encode()
        return len(encoder.encode(text)) + len(encoder.flush())

    n_before = len(corpus.ids) - len(held_out)
    n_bytes = size(corpus.ids) - size(corpus.ids[:n_before])
    return n_bytes * 8 * math.log(2) / len(held_out)


def losses(model: CharRNN, ids: Tensor, segment: int) -> Iterator[tuple[Tensor, int]]:
    """Read ``ids`` from end to end, carrying the state on, without dropout; yield for each segment
    the sum of its characters' losses in nats and their number. Gradients stay within a segment."""
    model.train()  # cuDNN has gradients only so; without dropout it is as in evaluation
    model.lstm.dropout = model.dropout.p = 0.0
    hidden, device = model.init_hidden(1), model.fc.weight.device
    for x, y in zip(ids[:-1].split(segment), ids[1:].split(segment), strict=True):
        logits, hidden = model(x[None].to(device), detach(hidden))
        yield F.cross_entropy(logits, y.to(device).long(), reduction="sum"), len(y)


def gradient_rms(model: CharRNN, ids: Tensor, segment: int) -> list[Tensor]:
    """Return for each weight the square root of its mean squared gradient over the segments of
    ``ids``."""
    model = deepcopy(model)
    weights = list(model.parameters())
    squares, n = [torch.zeros_like(weight) for weight in weights], 0
    for loss, n_chars in losses(model, ids, segment):
        gradients = torch.autograd.grad(loss / n_chars, weights)
        for square, gradient in zip(squares, gradients, strict=True):
            square += gradient**2
        n += 1
    return [(square / n).sqrt() for square in squares]


def dynamic_loss(
    model: CharRNN, ids: Tensor, rms: list[Tensor], lr: float, decay: float, segment: int
) -> float:
    """Return nats per character of ``ids[1:]``, read once, with learning after each scored segment.

    A step moves each weight along its gradient divided by its ``rms``, and back towards its trained
    value, by more where ``rms`` is larger (section 5 of the paper: RMS, with an RMS global prior).
    """
    trained, model = list(model.parameters()), deepcopy(model)
    weights = list(model.parameters())
    mean = sum(r.sum() for r in rms) / sum(r.numel() for r in rms)
    pulls = [(decay * r / mean).clamp(max=1.0) for r in rms]
    total = 0.0
    for loss, n_chars in losses(model, ids, segment):
        total += loss.item()
        gradients = torch.autograd.grad(loss / n_chars, weights)
        with torch.no_grad():
            for w, w0, g, r, pull in zip(weights, trained, gradients, rms, pulls, strict=True):
                w += pull * (w0 - w) - lr * g / (r + EPSILON * mean)
    return total / (len(ids) - 1)


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    p = Parser(__doc__)
    p.add_argument("--ckpt", nargs="*", default=[], metavar="FILE", help="models of train.py")
    p.add_argument("--data", help="their text (default: Anna Karenina, or a made-up one)")
    p.add_argument("--minutes", type=float, nargs="*", metavar="M", help="of the notebook's recipe")
    p.add_argument("--device", default="auto", help="of all but PPMd")
    p.add_argument("--lr", type=float, default=1e-3, help="of dynamic evaluation")
    p.add_argument("--decay", type=float, default=1e-4, help="back to the trained weights, a step")
    p.add_argument("--segment", type=int, default=64, help="characters between two such steps")
    p.add_argument("--learned", type=int, default=50_000, help="characters that give the rms")
    args = p.parse_args(argv)
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        corpus = load_corpus([find_text(args.data, folder)])
    val_frac = min(0.1, 200_000 / len(corpus.ids))  # as train.py's
    saved = {path: load_dict(path) for path in args.ckpt}
    for path, contents in saved.items():
        if (contents.get("fingerprint"), contents.get("val_frac")) != (
            corpus.fingerprint,
            val_frac,
        ):
            raise UserError(f"{path}: of another text, or another part of it was held out")
    _, held_out = split_text(corpus.ids, val_frac)
    print(f"{machine(device)}\n{len(held_out):,} characters held out; nats/char\n", flush=True)
    rows = [["", "plain", "learning as it is scored"]]
    for order in ORDERS if pyppmd else ():
        rows.append(
            [f"PPMd, order {order}", "", f"{ppmd_loss(pyppmd, corpus, held_out, order):.4f}"]
        )
    for minutes in args.minutes or ():
        loss, n_steps = theirs(corpus, val_frac, 60 * minutes, device)
        rows.append([f"notebook, {minutes:g} minutes, {n_steps} steps", f"{loss:.4f}", ""])
    for path, contents in saved.items():
        model = build_model(contents, path).to(device)
        train_ids, held_out = split_text(corpus.encode_with(model.unique_tokens), val_frac)
        rms = gradient_rms(model, train_ids[-args.learned :], args.segment)
        dynamic = dynamic_loss(model, held_out, rms, args.lr, args.decay, args.segment)
        name = f"{path}, {model.cell.upper()} {model.n_hidden} x {model.n_layers}"
        rows.append([name, f"{evaluate(model, held_out):.4f}", f"{dynamic:.4f}"])
    table(rows)
    if pyppmd is None:
        print(f"\n{NO_PPMD}")


if __name__ == "__main__":
    sys.exit(main())
