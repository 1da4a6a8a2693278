"""What only a GPU can show; skipped without one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import at_step, evaluations, interrupt, run_in

import train
from charrnn import CharRNN, evaluate
from charrnn.network.checkpoint import load_dict
from charrnn.network.device import has_persistent_lstm
from charrnn.network.model import one_hot_encode
from charrnn.training.batches import Batches
from charrnn.training.distributed import Distributed
from charrnn.training.optimizer import make_optimizers
from charrnn.training.settings import new_settings, resolve_settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It rounds float32 to 10 bits, and is off by itself for plain products only."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield


def test_a_gpu_learns_what_a_cpu_does(tmp_path: Path) -> None:
    losses = []
    for device, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "float16")):
        folder = tmp_path / f"{device}-{dtype}"
        run_in(folder, device=device, dtype=dtype, drop_prob=0.0, preset="laptop")
        losses.append([line["val_loss"] for line in evaluations(folder)])
    cpu, gpu, half = losses
    assert gpu == pytest.approx(cpu, abs=5e-3) and cpu[-1] < cpu[0] - 0.2
    assert half == pytest.approx(cpu, abs=2e-2)


@pytest.mark.parametrize("preset", ["laptop", "accelerator"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_step_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, preset: str
) -> None:
    getitem, agree, steps = Batches.__getitem__, Distributed.agree, 0

    def begin(batches: Batches, step: int) -> Any:
        nonlocal steps
        steps += 1
        batches.carried(step)  # once an epoch it is copied to the device, which waits
        if steps > 5:  # the first ones set the libraries up
            torch.cuda.set_sync_debug_mode("error")
        return getitem(batches, step)

    def end(*args: Any) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        return agree(*args)

    monkeypatch.setattr(Batches, "__getitem__", begin)
    monkeypatch.setattr(Distributed, "agree", end)
    try:
        assert run_in(tmp_path, device="cuda", dtype=dtype, preset=preset).status == 0
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps > 50


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_run_on_a_gpu_can_be_taken_up_there_and_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 60, interrupt)
        assert run_in(tmp_path, device="cuda", dtype="auto").status == 130
    state = load_dict(tmp_path / "rnn.resume")["state"]
    assert all(part.dtype == torch.float32 for part in state["hidden"])
    trained = train.train(resume=str(tmp_path / "rnn.resume"), device=device)
    losses = [line["val_loss"] for line in evaluations(tmp_path)]
    assert trained.status == 0 and losses[-1] < losses[0]
    assert trained.model.fc.weight.device.type == device


def test_gradients_in_float16_are_those_in_float32() -> None:
    """A model that has learned has gradients too small for float16."""
    ids = torch.arange(64, device="cuda").repeat(8, 3) % 64
    x, y = ids[:, :-1], ids[:, 1:].contiguous()
    gradients = []
    for dtype in (torch.float32, torch.float16):
        torch.manual_seed(1)
        model = CharRNN(tuple(map(chr, range(64))), 256, 2, 0.0).cuda()
        preset = {"preset": "accelerator"}
        settings = resolve_settings(new_settings(preset, None), True, 10**6, lambda: 1e6)
        optimizers = make_optimizers(model, settings, dtype)
        for group in (group for each in optimizers for group in each.param_groups):
            group["lr"] = 0.0
        train.train_step(model, optimizers, x, y, model.init_hidden(8), 1e9, dtype)
        gradients.append(model.lstm.weight_hh_l0.grad)
    exact, half = gradients
    assert (half - exact).norm() < 0.03 * exact.norm()
    assert (half == 0).float().mean() < (exact == 0).float().mean() + 0.01


def test_the_loss_is_the_same_on_a_gpu() -> None:
    torch.manual_seed(1)
    model, ids = CharRNN(tuple("abcdefgh"), 64, 2, 0.5), torch.randint(8, (20_000,))
    expected = evaluate(model, ids)
    assert evaluate(model.cuda(), ids) == pytest.approx(expected, abs=1e-4)
    assert evaluate(model, ids.cuda(), torch.float16) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("n_hidden", [128, 1024])
def test_layer_by_layer_is_the_same_lstm_on_a_gpu(n_hidden: int) -> None:
    torch.manual_seed(1)
    model, ids = CharRNN(tuple("abcdefgh"), n_hidden, 2, 0.0).cuda(), torch.randint(8, (64, 32))
    x, hidden = one_hot_encode(ids, 8).cuda(), model.init_hidden(64)
    assert not model.is_faster_by_layer  # in float32
    with torch.autocast("cuda", torch.float16):
        assert model.is_faster_by_layer == has_persistent_lstm(hidden[0].device)
        results = []
        for layers in (model.lstm, model.layer_by_layer):
            output, (h, c) = layers(x, hidden)
            loss = output.float().square().sum()  # a mean's gradients are too small for float16
            gradients = torch.autograd.grad(loss, list(model.lstm.parameters()))
            results.append([output, h, c, *gradients])
    for theirs, ours in zip(*results, strict=True):
        assert (ours - theirs).float().norm() < 0.01 * theirs.float().norm()
