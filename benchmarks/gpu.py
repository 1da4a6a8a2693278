"""Every figure that needs a GPU, with one command: ``python -m benchmarks.gpu``."""

import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import machine, wait
from benchmarks.notebook_baseline import NotebookRNN, Windows, train_steps
from benchmarks.training_speed import our_steps
from charrnn.corpus import load_corpus
from charrnn.data import split_text

ROOT = Path(__file__).parent.parent


def cudnn_share(device: torch.device) -> float:
    """How much of the GPU's time in our training step at 1024 x 2 is cuDNN's own."""
    flags = {"n_hidden": 1024, "n_layers": 2, "drop_prob": 0.5, "device": "cuda", "dtype": "auto"}
    with tempfile.TemporaryDirectory() as folder:
        steps = our_steps(load_corpus(["python-docs"]), Path(folder), **flags)
        list(islice(steps, 5))
        with torch.profiler.profile() as profile:
            list(islice(steps, 20))
            wait(device)
    events = profile.key_averages()
    cudnn = sum(e.device_time_total for e in events if "cudnn_rnn" in e.key)
    return cudnn / sum(e.self_device_time_total for e in events)


def main() -> None:
    """Run the other benchmarks on cuda, then 15 epochs of both recipes on Anna Karenina."""
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: error: no CUDA GPU here")
    for name in ("training_speed", "sampling_speed", "memory"):
        print(f"\n## {name}\n", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--device", "cuda"]
        subprocess.run(command, cwd=ROOT, check=True)
    device = torch.device("cuda")
    print(
        f"\n## the LSTM's share\n\n{cudnn_share(device):.0%} of our step is cuDNN's LSTM",
        flush=True,
    )
    print(f"\n## 15 epochs\n\n{machine(device)}", flush=True)
    data = sys.argv[1] if len(sys.argv) > 1 else "../shared/data/anna.txt"
    corpus = load_corpus([data])
    train, _ = split_text(corpus.ids, 0.1)
    tokens = len(corpus.vocabulary)
    steps = Windows(np.asarray(train), 128, 256)
    n_steps = 15 * steps.rows.shape[1] // steps.width
    losses = train_steps(NotebookRNN(tokens, 1024, 2).cuda(), np.asarray(train), 128, 256, device)
    next(losses)
    wait(device)
    began = time.perf_counter()
    for _ in range(n_steps):
        next(losses)
    wait(device)
    print(f"notebook: {n_steps} steps in {time.perf_counter() - began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        ckpt = str(Path(folder, "rnn.net"))
        command = [sys.executable, "train.py", "--epochs", "15", "--device", "cuda"]
        began = time.perf_counter()
        subprocess.run([*command, "--data", data, "--ckpt", ckpt], cwd=ROOT, check=True)
        print(f"ours: {time.perf_counter() - began:.0f} s in all", flush=True)
        command = [sys.executable, "-m", "charrnn.evaluate", "--ckpt", ckpt, "--data", data]
        subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
