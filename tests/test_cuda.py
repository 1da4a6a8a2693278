"""What only a GPU can show; skipped without one."""

from pathlib import Path

import pytest
import torch
from charrnn.training import Run, batches, load_resume, train, train_step

from charrnn import evaluate
from charrnn.corpus import load_corpus
from charrnn.model import detach
from charrnn.settings import fill_in

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
FLAGS = {"preset": "accelerator", "epochs": 2, "n_hidden": 32, "n_layers": 2, "lr": 1e-2}
FLAGS |= {"batch_size": 4, "seq_length": 16, "drop_prob": 0.0, "dtype": "float32"}


def make_run(folder: Path, device: str, **flags: object) -> tuple:
    """What ``train`` takes; the run's files are in ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("a bad cab led\nthe fed cat back\n" * 100, encoding="utf-8")
    corpus = load_corpus([str(folder / "a.txt")])
    paths = {"data": [str(folder / "a.txt")], "ckpt": str(folder / "rnn.net")}
    return fill_in(FLAGS | paths | {"device": device} | flags, True, len(corpus.ids)), corpus


def test_a_gpu_learns_what_a_cpu_does(tmp_path: Path) -> None:
    losses = []
    for device in ("cpu", "cuda"):
        run = Run(*make_run(tmp_path / device, device))
        hidden = run.zeros
        for x, y in batches(run):
            loss, hidden = train_step(run, x, y, detach(hidden))
            run.progress.step += 1
        losses.append((loss.item(), evaluate(run.model, run.val_ids)))
    assert losses[0] == pytest.approx(losses[1], abs=5e-3) and losses[0][1] < 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_waits_for_nothing(tmp_path: Path, dtype: str) -> None:
    run = Run(*make_run(tmp_path, "cuda", dtype=dtype, drop_prob=0.5))
    x, y = next(batches(run))
    _, hidden = train_step(run, x, y, run.zeros)  # sets the libraries up
    assert x.is_cuda and x.dtype == torch.uint8
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(run, x, y, detach(hidden))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_run_on_a_gpu_ends_and_can_be_taken_up_again(tmp_path: Path) -> None:
    assert train(*make_run(tmp_path, "cuda", dtype="auto")) == 0
    settings, state = load_resume(str(tmp_path / "rnn.resume"))
    run = Run(settings, load_corpus(settings.data), state)
    assert run.fraction_done() == 1
    assert run.lines[-1]["val_loss"] == pytest.approx(evaluate(run.model, run.val_ids), abs=1e-3)
