"""The loss is scaled in float16. The CPU has no LSTM in it: here gradients are rounded on their way
to the weights, as they are under autocast on CUDA."""

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import train
from charrnn import CharRNN
from charrnn.training.optimizer import make_optimizers

SETTINGS = SimpleNamespace(lr=1e-3, beta2=0.99, weight_decay=0.01, muon_scale=10.0)


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    yield


def make(rounded: bool = False) -> tuple[CharRNN, list[torch.optim.Optimizer]]:
    torch.manual_seed(1)
    model = CharRNN(tuple("abcd"), 16, 2, 0.0)
    if rounded:
        for weight in model.parameters():
            weight.register_hook(lambda gradient: gradient.half().float())
    optimizers = make_optimizers(model, SETTINGS, torch.float32)
    for group in (group for each in optimizers for group in each.param_groups):
        group["lr"] = group["peak_lr"]
    return model, optimizers


def take_steps(
    model: CharRNN, optimizers: list[torch.optim.Optimizer], dtype: torch.dtype, steps: int = 1
) -> Tensor:
    """Train on random characters; whether the last step was bad."""
    generator, hidden = torch.Generator().manual_seed(1), model.init_hidden(4)
    for _ in range(steps):
        ids = torch.randint(4, (4, 17), generator=generator)
        x, y = ids[:, :-1], ids[:, 1:].contiguous()
        _, bad, hidden = train.train_step(model, optimizers, x, y, hidden, 1.0, dtype)
    return bad


def with_loss_times(monkeypatch: pytest.MonkeyPatch, number: float) -> None:
    def loss(*args: Any, **options: Any) -> Tensor:
        return F.nll_loss(*args, **options) * number

    monkeypatch.setattr(train, "F", SimpleNamespace(nll_loss=loss))


def test_the_scale_leaves_the_weights_as_they_would_be() -> None:
    models = []
    for dtype in (torch.float32, torch.float16):
        model, optimizers = make()
        assert not take_steps(model, optimizers, dtype, steps=50)
        models.append(nn.utils.parameters_to_vector(model.parameters()))
    start = nn.utils.parameters_to_vector(make()[0].parameters())
    assert (models[0] - start).abs().max() > 1e-2
    assert (models[0] - models[1]).abs().max() < 1e-7


def test_small_gradients_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with_loss_times(monkeypatch, 1e-5)
    true, optimizers = make()
    take_steps(true, optimizers, torch.float32)
    expected = true.lstm.weight_hh_l0.grad
    for scale in (1024, 1):
        monkeypatch.setattr(train, "LOSS_SCALE", scale)
        model, optimizers = make(rounded=True)
        take_steps(model, optimizers, torch.float16)
        error = (model.lstm.weight_hh_l0.grad - expected).norm() / expected.norm()
        assert (error < 0.01) if scale > 1 else (error > 0.1)


def test_a_step_whose_scaled_gradient_overflows_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, optimizers = make(rounded=True)
    assert not take_steps(model, optimizers, torch.float16, steps=3)

    def kept() -> list[Tensor]:
        states = [state for each in optimizers for state in each.state.values()]
        moments = [v for s in states for k, v in s.items() if k in ("exp_avg", "momentum")]
        steps = [s["step"] for s in states if isinstance(s["step"], Tensor)]
        return [t.clone() for t in (*model.parameters(), *moments, *steps)]

    before = kept()
    with monkeypatch.context() as patch:
        with_loss_times(patch, 1e4)  # times 1024 too large for float16
        assert take_steps(model, optimizers, torch.float16)
        assert all(map(torch.equal, before, kept()))
    assert not take_steps(model, optimizers, torch.float16)
    assert not any(map(torch.equal, before[:4], kept()[:4]))
