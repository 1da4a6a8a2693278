"""Print what rounded weights change in sampling: the loss on held-out text, and the KL divergence
from the float32 distribution in nats. Run ``python -m benchmarks.rounding --ckpt rnn.net``."""

import sys

import torch
from torch.nn import functional as F

from benchmarks.common import table
from charrnn import load_checkpoint
from charrnn.system.cli import Parser, command
from charrnn.text.corpus import load_corpus
from charrnn.text.split import split_text
from charrnn.writing.decoder import Decoder

ROWS = 64


@command
@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    """Read the end of the held-out text in 64 streams with each decoder; print the table."""
    p = Parser(__doc__)
    p.add_argument("--ckpt", nargs="+", required=True, help="models")
    p.add_argument("--data", help="their text (default: Anna Karenina)")
    p.add_argument("--chars", type=int, default=64_000, help="read, of the end of the text")
    args = p.parse_args(argv)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    rows = [["model", "weights", "characters", "nats/char", "mean KL", "largest KL"]]
    corpus = load_corpus([args.data] if args.data else None)
    for path in args.ckpt:
        model = load_checkpoint(path)
        _, held_out = split_text(corpus.encode_with(model.unique_tokens), 0.1)
        ids = held_out[-args.chars :].long()
        ids = ids[: len(ids) // ROWS * ROWS].view(ROWS, -1)
        zeros = model.init_hidden(ROWS)
        decoders = {name: Decoder(model, zeros, dtype) for name, dtype in dtypes.items()}
        loss, kl, largest = (dict.fromkeys(dtypes, 0.0) for _ in range(3))
        for x, y in zip(ids.T[:-1], ids.T[1:], strict=True):
            logp = {name: d.step(x).log_softmax(1) for name, d in decoders.items()}
            for name in dtypes:
                each = F.kl_div(logp[name], logp["float32"], log_target=True, reduction="none")
                kl[name] += each.sum().item()
                largest[name] = max(largest[name], each.sum(1).max().item())
                loss[name] += F.nll_loss(logp[name], y, reduction="sum").item()
        n = ids[:, 1:].numel()
        for name in dtypes:
            row = [f"{model.n_hidden} x {model.n_layers}", name, f"{n:,}", f"{loss[name] / n:.4f}"]
            rows.append([*row, f"{kl[name] / n:.1e}", f"{largest[name]:.1e}"])
    table(rows)


if __name__ == "__main__":
    sys.exit(main())
