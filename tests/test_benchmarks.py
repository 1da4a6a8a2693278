"""The benchmarks run, and what they measure against is the notebook's recipe."""

import subprocess
import sys
import unicodedata
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import cyrillic
from benchmarks.notebook_baseline import NotebookRNN, Windows, sample_ids, train_steps
from charrnn import CharRNN, save_checkpoint
from charrnn.corpus import load_corpus

ROOT = Path(__file__).parent.parent


def test_windows_are_the_notebooks() -> None:
    ids = np.arange(2 * 3 * 5 + 4)  # two rows of three windows of 4 + 1, and a rest
    pairs = list(Windows(ids, 2, 4))
    assert len(pairs) == 3
    assert pairs[0][0].tolist() == [[0, 1, 2, 3], [15, 16, 17, 18]]
    assert pairs[1][1].tolist() == [[6, 7, 8, 9], [21, 22, 23, 24]]  # 4 was never an input


def test_the_baseline_learns_and_samples() -> None:
    torch.manual_seed(1)
    ids = np.tile(np.array([0, 1, 2, 3], dtype=np.uint8), 600)
    model = NotebookRNN(5, 16, 1, 0.0)
    losses = list(islice(train_steps(model, ids, 4, 8, torch.device("cpu")), 500))
    assert losses[-1] < 0.5 < losses[0]
    drawn = list(islice(sample_ids(model, top_k=1), 8))
    assert drawn == [1, 2, 3, 0, 1, 2, 3, 0]


TINY = {
    "training_speed": "--device cpu --repeats 1 --seconds 0.01 --batch 4 8 --sizes 8x1 8x2",
    "sampling_speed": "--device cpu --repeats 1 --seconds 0.01 --sizes 8 --streams 1 3",
    "memory": "--device cpu --sizes 8x1",
    "equal_time": "--device cpu --repeats 1 --seconds 2 --data python-docs --n-hidden 8",
    "start_up": "--repeats 1 --sizes 8",
    "rounding": "--ckpt {ckpt} --data python-docs --chars 6400",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_each_script_prints_its_table(name: str, tmp_path: Path) -> None:
    ckpt = tmp_path / "rnn.net"
    save_checkpoint(ckpt, CharRNN(load_corpus(["python-docs"]).vocabulary.tokens, 8, 1))
    flags = TINY[name].format(ckpt=ckpt).split()
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    rows = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(rows) >= 3 and len({row.count("|") for row in rows}) == 1


def test_the_made_up_text_is_cyrillic_and_the_same_each_time() -> None:
    made_up = cyrillic.text(20_000)
    assert made_up == cyrillic.text(20_000) != cyrillic.text(20_000, seed=2)
    letters = [char for char in made_up if char.isalpha()]
    assert len(made_up) >= 20_000 and len(letters) > 10_000
    assert all(unicodedata.name(char).startswith("CYRILLIC") for char in letters)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_the_gpu_table_needs_a_gpu() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode != 0 and "no CUDA GPU here" in result.stderr
    assert "Traceback" not in result.stderr
