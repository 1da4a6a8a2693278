"""The benchmarks run, and what they measure against is the notebook's recipe."""

import math
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import ROOT, run_in, write_text
from torch.autograd import DeviceType

import train
from benchmarks import anchors, busy, common, cyrillic, gpu
from benchmarks.notebook_baseline import (
    NotebookRNN,
    Windows,
    held_out_loss,
    sample_ids,
    train_steps,
)
from benchmarks.ours import Enough, watch
from charrnn import CharRNN, evaluate
from charrnn.text.corpus import load_corpus
from charrnn.text.split import split_text

CPU = torch.device("cpu")


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
    losses = [loss for loss, _ in islice(train_steps(model, ids, 4, 8, CPU), 500)]
    assert losses[-1] < 0.5 < losses[0]
    drawn = list(islice(sample_ids(model, top_k=1), 8))
    assert drawn == [1, 2, 3, 0, 1, 2, 3, 0]
    assert held_out_loss(model, tuple("abcde"), torch.from_numpy(ids[:100])) < 0.5


def run_script(name: str, *flags: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, encoding="utf-8"
    )


TINY = {
    "seeds": "--data {text} --seeds 1 --steps 1 --train --n-hidden 64 --n-layers 1 --device cpu",
    "memory --text": "--text {text} --device cpu --epochs 1 --n-hidden 8",
    "equal_time": "--data {text} --repeats 1 --seconds 1 --n-hidden 8",
    "notebook_run": "--data python-docs --n-hidden 8 --epochs 1",
    "run_parts": "--data {text} --epochs 1 --n-hidden 8 --device cpu --ckpt {folder}/parts.net",
    "start_up": "--repeats 1 --sizes 8",
    "rounding": "--ckpt {ckpt} --data {text} --chars 640",
    "anchors": "--ckpt {ckpt} --data {text} --device cpu --minutes 0.01 --learned 640",
    "step_parts": "--shapes 8x1:2x8 --seconds 0.01 --repeats 1",
    "busy": "--size 8x1 --batch 4 8 --seconds 0.01 --repeats 1 --loops 1",
    "gpu": "--device cpu --tiny",  # runs training_speed, sampling_speed and memory, too
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_each_script_prints_its_table(name: str, tmp_path: Path) -> None:
    text = write_text(tmp_path, 2000)
    run_in(tmp_path, data=[text], epochs=1)
    flags = TINY[name].format(ckpt=tmp_path / "rnn.net", text=text, folder=tmp_path).split()
    result = run_script(name.partition(" ")[0], *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    rows = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(rows) >= 3 and any("| --- |" in row for row in rows)
    for above, below in pairwise(result.stdout.splitlines()):  # of one table
        assert not (above.startswith("|") and below.startswith("|")) or (
            above.count("|") == below.count("|")
        )


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    result = run_script("training_speed", "--data", str(tmp_path / "none"), "--device", "cpu")
    assert result.returncode == 2 and result.stdout.count("|") == 0
    assert "Traceback" not in result.stderr


def test_our_side_is_the_program_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, real, numbers = write_text(tmp_path), train.train_step, []

    def before_step(n: int) -> None:
        numbers.append(n)
        if n == 3:
            raise Enough("measured")

    sizes = {"n_hidden": 8, "n_layers": 1, "batch_size": 2, "seq_length": 4}
    assert watch(before_step, data=[text], device="cpu", **sizes) == "measured"
    assert numbers == [0, 1, 2, 3] and train.train_step is real
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_made_up_text_is_cyrillic_and_the_same_each_time() -> None:
    made_up = cyrillic.text(20_000)
    assert made_up == cyrillic.text(20_000) != cyrillic.text(20_000, seed=2)
    letters = [char for char in made_up if char.isalpha()]
    assert len(made_up) >= 20_000 and len(letters) > 10_000
    assert all(unicodedata.name(char).startswith("CYRILLIC") for char in letters)


def test_a_text_is_found_or_made_up_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("charrnn.text.download.ANNA_URL", "http://127.0.0.1:9/")  # nobody answers
    monkeypatch.setattr(common, "make_text", lambda folder: f"{folder}/made_up.txt")
    given = write_text(tmp_path)
    assert common.find_text("a.txt", "folder") == given
    assert common.find_text(None, str(tmp_path)) == str(tmp_path / "made_up.txt")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "anna.txt").write_text("Happy families")
    assert common.find_text(None, "folder") == str(tmp_path / "data" / "anna.txt")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "text: a.txt" and said[-1] == f"text: {Path('data', 'anna.txt')}"
    assert f"text: {tmp_path / 'made_up.txt'}" in said


def test_busy_loops_end_with_the_measurement() -> None:
    with busy.busy(2) as loops:
        assert [loop.poll() for loop in loops] == [None, None]
    assert None not in [loop.poll() for loop in loops]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_the_gpu_table_needs_a_gpu() -> None:
    result = run_script("gpu")
    assert result.returncode == 2 and "no CUDA GPU here" in result.stderr
    assert result.stderr.count("\n") == 1 and not result.stdout


def test_a_kernel_is_counted_once() -> None:
    def event(key: str, kind: DeviceType, own: float, below: float, named: bool = False) -> object:
        times = {"self_device_time_total": own, "device_time_total": below}
        return SimpleNamespace(key=key, device_type=kind, is_user_annotation=named, **times)

    events = [
        event("aten::_cudnn_rnn", DeviceType.CPU, 30, 30),
        event("aten::_cudnn_rnn_backward", DeviceType.CPU, 40, 40),
        event("CudnnRnnBackward0", DeviceType.CPU, 0, 40),
        event("aten::mm", DeviceType.CPU, 20, 20),
        event("elemWiseRNNcell", DeviceType.CUDA, 30, 30),
        event("cutlass_gemm", DeviceType.CUDA, 60, 60),
        event("Memcpy HtoD", DeviceType.CUDA, 10, 10),
        event("Optimizer.step#AdamW.step", DeviceType.CUDA, 5, 5, named=True),
    ]
    assert gpu.kernel_times(events) == (70, 100)


def test_the_profile_is_of_some_steps_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiled = []
    monkeypatch.setattr(gpu, "N_PROFILED", 2)
    monkeypatch.setattr(gpu, "kernel_times", lambda events: profiled.extend(events) or (70, 100))
    text = write_text(tmp_path, 20_000)
    said = gpu.lstm_share(text, CPU, 8)
    assert said.startswith("70% of the time of our step's kernels is cuDNN's LSTM")
    counts = {event.key: event.count for event in profiled}
    assert counts["aten::nll_loss_backward"] == 2


class Doubling:
    """A coder, in pyppmd's place, that needs two bits for each byte."""

    def __init__(self, order: int, memory: int) -> None:
        self.n_bytes = 0

    def encode(self, text: bytes) -> bytes:
        self.n_bytes += len(text)
        return b""

    def flush(self) -> bytes:
        return bytes(self.n_bytes // 4)


def test_what_held_out_text_adds_to_the_code(tmp_path: Path) -> None:
    corpus = load_corpus([write_text(tmp_path)])
    ids = corpus.ids[: len(corpus.ids) // 40 * 40]
    corpus = SimpleNamespace(ids=ids, vocabulary=corpus.vocabulary)
    _, held_out = split_text(ids, 0.1)
    coder = SimpleNamespace(Ppmd7Encoder=Doubling)
    assert anchors.ppmd_loss(coder, corpus, held_out, 4) == pytest.approx(2 * math.log(2))


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[tuple[CharRNN, torch.Tensor]]:
    """A model, and a text unlike the one that it has learned: its letters have changed places."""
    model = run_in(tmp_path, drop_prob=0.0).model
    text = Path(write_text(tmp_path)).read_text(encoding="utf-8")
    yield (
        model,
        torch.tensor([model.char2int[c] for c in text.translate(str.maketrans("ab", "ba"))]),
    )


def test_dynamic_evaluation_scores_before_it_learns(
    trained: tuple[CharRNN, torch.Tensor],
) -> None:
    model, ids = trained
    before = [weight.clone() for weight in model.parameters()]
    rms = anchors.gradient_rms(model, ids[:500], 32)
    plain = evaluate(model, ids)
    # without steps it is the plain figure; with one segment nothing can be learned in time
    assert anchors.dynamic_loss(model, ids, rms, 0, 1e-3, 32) == pytest.approx(plain, abs=1e-5)
    whole = anchors.dynamic_loss(model, ids, rms, 1e-2, 0, len(ids))
    assert whole == pytest.approx(plain, abs=1e-5)
    learned = anchors.dynamic_loss(model, ids, rms, 3e-3, 1e-3, 32)
    assert learned < plain - 0.05
    # pulled all the way back in each step it forgets as soon as it has learned
    held_back = anchors.dynamic_loss(model, ids, rms, 3e-3, 1e9, 32)
    assert learned < held_back
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_model_of_another_text_is_no_row(tmp_path: Path) -> None:
    run_in(tmp_path, epochs=1)
    other = write_text(tmp_path / "other", seed=2)
    result = run_script("anchors", "--ckpt", str(tmp_path / "rnn.net"), "--data", other)
    assert result.returncode == 2 and "of another text" in result.stderr
