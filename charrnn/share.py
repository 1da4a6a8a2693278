"""Make a page that generates text: a model and the code that runs it, in one HTML file."""

import base64
import math
import os
import sys

import torch
from torch import Tensor

from charrnn.errors import UserError
from charrnn.network.loaded import LoadedModel, load_model
from charrnn.pages.page import embed, fill, page, page_file, write_page
from charrnn.system.cli import Parser, command
from charrnn.system.files import check_output
from charrnn.writing.decoder import has_fast_step
from charrnn.writing.generation import default_prime

SCRIPTS = ("decoder.js", "worker.js", "share.js")  # one script, run by the page and its worker
POLICY = "connect-src 'none'; worker-src blob:"  # added to every page's, which allows nothing
MARK = b'<meta name="generator" content="charrnn">'  # at the beginning of every page
LARGE = 20_000_000  # bytes of a page that a visitor would wait for
HOW = (
    "Type a beginning and let it write on. Below the text are the characters that it expects "
    "next: choose one, and see what it expects then."
)


def pack(weight: Tensor, weights: str) -> bytes:
    """Return the bytes of a weight, little-endian. Vectors are float32. Matrices are float16, or
    int8 from -127 to 127 after a float32 scale for each row."""
    weight = weight.detach()
    if weight.dim() == 1:
        return weight.numpy().astype("<f4").tobytes()
    if weights == "float16":  # whose largest number is 65504
        return weight.clamp(-65504, 65504).numpy().astype("<f2").tobytes()
    scales = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-30)
    steps = (weight / scales).round().to(torch.int8)
    return scales.numpy().astype("<f4").tobytes() + steps.numpy().tobytes()


def facts_of(model: LoadedModel) -> list[str]:
    """Return the facts for the page's caption: the size, and the text and loss if the file has
    them."""
    net = model.net
    size = sum(weight.numel() for weight in net.parameters())
    facts = [f"{net.cell.upper()}, {net.n_hidden} x {net.n_layers}: {size:,} weights"]
    if model.text_name:
        facts.append(f"trained on {model.text_name[:100]}")
    if model.loss is not None:
        bits = f"{model.loss / math.log(2):.2f} bits"
        facts.append(f"held-out loss {model.loss:.3f} nats ({bits}) per character")
    return facts


def share_page(loaded: LoadedModel, title: str | None, prime: str, weights: str) -> str:
    """Return the whole page. ``title`` and ``prime`` are any text; ``weights`` is float16 or
    int8."""
    model, name, loss = loaded.net, loaded.text_name[:100], loaded.loss
    tensors = model.state_dict()
    model_data = {
        "cell": model.cell,
        "n_hidden": model.n_hidden,
        "n_layers": model.n_layers,
        "tokens": list(model.unique_tokens),
        "weights": weights,
        "shapes": [(key, list(tensor.shape)) for key, tensor in tensors.items()],
        "start": model.char2int[default_prime(model)],  # read before the text: a line begins
        "bits": None if loss is None else loss / math.log(2),
    }
    packed = b"".join(pack(tensor, weights) for tensor in tensors.values())
    packed_text = base64.b64encode(packed).decode()
    body = fill("share.html", model=embed(model_data), prime=embed(prime), weights=packed_text)
    return page(
        title or (f"A network that writes like {name}" if name else "A network that writes"),
        HOW,
        facts_of(loaded),
        body,
        style=page_file("share.css"),
        script="\n".join(map(page_file, SCRIPTS)),
        policy=POLICY,
        wide=True,
    )


def require_page(path: str) -> None:
    """Raises UserError if ``path`` is a file that is neither empty nor a page written by
    charrnn."""
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        start = file.read(1000)
    if start and MARK not in start:
        raise UserError(f"--out {path}: exists and is not a page of charrnn; name another file")


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the page."""
    p = Parser(__doc__)
    p.add_argument("--ckpt", default="rnn.net", metavar="FILE", help="the model")
    out = "the page (default: the model's name with .html)"
    p.add_argument("--out", metavar="FILE", help=out)
    p.add_argument("--title", metavar="TEXT", help="heading of the page (default: the text's name)")
    p.add_argument(
        "--prime", default="", metavar="TEXT", help="what is typed already (default: nothing)"
    )
    what = "precision of the weights; int8 makes the page half as large"
    p.add_argument("--weights", choices=("float16", "int8"), default="float16", help=what)
    args = p.parse_args(argv)
    out = args.out if args.out is not None else os.path.splitext(args.ckpt)[0] + ".html"
    check_output(out, [args.ckpt], special=True)
    require_page(out)
    model = load_model(args.ckpt, "cpu")
    if not has_fast_step(model.net):
        raise UserError(
            f"{args.ckpt}: the page's own code runs LSTM, GRU and RNN as PyTorch has them, and "
            "this model computes something else"
        )
    html = share_page(model, args.title, args.prime, args.weights)
    advice = ""
    if len(html) > LARGE and args.weights != "int8":
        advice = ". That is much for a visitor to load: --weights int8 makes half of it"
    write_page(out, html, advice)


if __name__ == "__main__":
    sys.exit(main())
