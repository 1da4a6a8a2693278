"""Print characters per second of a shared page in Chromium, and the size of the page.

Run ``python -m benchmarks.share_speed``.

With ``--ckpt rnn.net --data FILE`` it also prints a trained model's held-out loss, as it is and
with the rounded weights of its page.
"""

import argparse
import base64
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import machine
from charrnn import CharRNN, evaluate, load_checkpoint, save_checkpoint
from charrnn.share import main as share
from charrnn.text.corpus import load_corpus
from charrnn.text.split import split_text
from tests.pages.browser import CHROMIUM, Browser

TOKENS = tuple(map(chr, range(40, 123)))  # 83, as in Anna Karenina


def read_page(path: Path) -> CharRNN:
    """Return the model in a page that share.py wrote, with the weights that it has there."""
    html = path.read_text(encoding="utf-8")

    def block(name: str) -> str:
        return re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', html, re.S)[1]

    described, packed = json.loads(block("model")), base64.b64decode(block("weights"))
    read, weights = 0, {}

    def take(dtype: str, *shape: int) -> np.ndarray:
        nonlocal read
        taken = np.frombuffer(packed, dtype, int(np.prod(shape)), read).reshape(shape)
        read += taken.nbytes
        return taken.astype(np.float32)

    for name, shape in described["shapes"]:
        if len(shape) == 1:
            weights[name] = take("<f4", *shape)
        elif described["weights"] == "float16":
            weights[name] = take("<f2", *shape)
        else:
            scales = take("<f4", shape[0], 1)
            weights[name] = scales * take("i1", *shape)
    assert read == len(packed)
    sizes = described["n_hidden"], described["n_layers"]
    model = CharRNN(tuple(described["tokens"]), *sizes, 0.0, described["cell"])
    model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    return model.eval()


def characters_per_second(browser: Browser, page: Path, length: int) -> float:
    """Return the speed that a visitor sees, from the click on Write to the last character."""
    with browser.open(page) as tab:
        tab.wait("document.querySelector('.guess .percent').textContent")
        tab.evaluate(f"document.getElementById('length').value = {length}")
        for _ in range(2):  # the first time the browser still compiles
            tab.click("#write")
            tab.wait("document.getElementById('write').textContent === 'Write'")
        said = tab.evaluate("document.getElementById('status').textContent")
    return float(re.search(r"(\d+) a second", said)[1])


def main() -> None:
    """Parse the command line and print the tables."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sizes", nargs="+", default=["512x1", "1024x2"], metavar="HxL")
    p.add_argument("--cell", default="lstm", choices=("lstm", "gru", "rnn"))
    p.add_argument("--length", type=int, default=500, help="characters")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--ckpt", help="a trained model, for the loss with rounded weights")
    p.add_argument("--data", nargs="+", help="the text it was trained on")
    args = p.parse_args()
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        net, page = Path(folder, "a.net"), Path(folder, "a.html")
        for size in args.sizes if CHROMIUM else ():
            n_hidden, n_layers = map(int, size.split("x"))
            save_checkpoint(net, CharRNN(TOKENS, n_hidden, n_layers, 0.0, args.cell))
            share(["--ckpt", str(net), "--out", str(page)])
            with Browser() as browser:
                rates = [
                    characters_per_second(browser, page, args.length) for _ in range(args.repeats)
                ]
            megabytes = page.stat().st_size / 1e6
            print(f"{size}: {max(rates):,.0f} characters a second, a page of {megabytes:.1f} MB")
        if args.ckpt:
            model = load_checkpoint(args.ckpt)
            corpus = load_corpus(args.data)
            val_frac = torch.load(args.ckpt, weights_only=True).get("val_frac", 0.1)
            _, ids = split_text(corpus.encode_with(model.unique_tokens), val_frac)
            loss = evaluate(model, ids)
            print(f"held-out loss: {loss:.5f} nats per character as trained", flush=True)
            for weights in ("float16", "int8"):
                share(["--ckpt", args.ckpt, "--out", str(page), "--weights", weights])
                rounded = evaluate(read_page(page), ids)
                print(f"{weights}: {rounded:.5f} ({rounded - loss:+.5f})", flush=True)


if __name__ == "__main__":
    main()
