"""Muon against a slow version, torch's own, and the promises of a step."""

import pytest
import torch

import train
from charrnn import CharRNN
from charrnn.training.optimizer import (
    ITERATIONS,
    MOMENTUM,
    Muon,
    is_hidden_to_hidden,
    make_optimizers,
    orthogonal,
)
from charrnn.training.settings import new_settings, resolve_settings


def settings(**given: object) -> object:
    return resolve_settings(new_settings(given, None), False, 10_000, lambda *_: 1e-3)


def test_directions_have_singular_values_near_one_in_each_gate() -> None:
    torch.manual_seed(1)
    matrix = torch.randn(4 * 32, 32)
    found = orthogonal(matrix, torch.float32)
    for block, before in zip(found.split(32), matrix.split(32), strict=True):
        u, s, v = torch.linalg.svd(before)
        expected, x = u @ v, before / before.norm()
        for _ in range(3):  # the quintic acts on the singular values alone
            u1, s1, v1 = torch.linalg.svd(x)
            x = u1 @ torch.diag(3.4445 * s1 - 4.7750 * s1**3 + 2.0315 * s1**5) @ v1
        torch.testing.assert_close(block, x, atol=1e-4, rtol=0)
        large = s > s.max() / 4  # small ones need more iterations
        near = torch.linalg.vecdot((u.T @ block @ v.T).diag()[large], torch.ones(large.sum()))
        assert 0.6 < near / large.sum() < 1.3 and expected.shape == block.shape


def test_torch_takes_the_same_step_where_a_weight_is_one_block() -> None:
    theirs_exist = getattr(torch.optim, "Muon", None)
    if theirs_exist is None:
        pytest.skip("torch >= 2.9")
    torch.manual_seed(1)
    ours, theirs = (torch.nn.Parameter(torch.eye(24)) for _ in range(2))
    one = Muon([{"params": [ours], "lr": 0.01}], 1, 0.5, torch.bfloat16)
    one.found_inf = torch.zeros(())
    two = torch.optim.Muon(
        [theirs], lr=0.01, weight_decay=0.5, momentum=MOMENTUM, ns_steps=ITERATIONS
    )
    for _ in range(5):
        ours.grad = torch.randn(24, 24)
        theirs.grad = ours.grad.clone()
        one.step()
        two.step()
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)  # bfloat16 products
    assert (ours - torch.eye(24)).abs().max() > 5e-3


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_every_weight_has_one_optimizer(cell: str) -> None:
    model = CharRNN(tuple("abc"), 8, 3, 0.0, cell)
    adamw, muon = make_optimizers(model, settings(), torch.float32)
    both = [{id(w) for g in each.param_groups for w in g["params"]} for each in (adamw, muon)]
    assert both[0] | both[1] == {id(w) for w in model.parameters()} and not both[0] & both[1]
    names = [name for name, _ in model.named_parameters() if is_hidden_to_hidden(name)]
    assert len(both[1]) == len(names) == 5  # three recurrent ones, two inputs from below
    assert len(make_optimizers(model, settings(preset="notebook"), torch.float32)) == 1


@pytest.mark.parametrize("preset, scale", [("laptop", 3), ("accelerator", 6)])
def test_a_rate_given_moves_both_optimizers(preset: str, scale: int) -> None:
    size = {"n_hidden": 8, "n_layers": 1, "drop_prob": 0.0}
    for lr in (0.02, 0.001):
        given = settings(preset=preset, lr=lr, **size)
        adamw, muon = make_optimizers(CharRNN(tuple("ab"), 8, 1, 0.0), given, torch.float32)
        assert adamw.param_groups[0]["peak_lr"] == lr
        assert muon.param_groups[0]["peak_lr"] == pytest.approx(scale * lr)


def test_a_bad_step_changes_nothing_and_a_direction_is_kept() -> None:
    torch.manual_seed(1)
    model = CharRNN(tuple("abcd"), 8, 2, 0.0)
    optimizers = make_optimizers(model, settings(), torch.float32)
    for group in (g for each in optimizers for g in each.param_groups):
        group["lr"] = group["peak_lr"]
    x = torch.randint(4, (4, 8))
    h, c = model.init_hidden(4)

    def step(hidden: tuple) -> bool:
        return bool(train.train_step(model, optimizers, x, x, hidden, 1.0, torch.float32)[1])

    def kept() -> list[torch.Tensor]:
        moments = [v for each in optimizers for s in each.state.values() for v in s.values()]
        return [torch.as_tensor(v).clone() for v in [*model.parameters(), *moments]]

    assert not step((h, c))
    before = kept()
    directions = [s["direction"].clone() for s in optimizers[1].state.values()]
    assert all(d.norm() > 1 for d in directions)
    assert step((h + float("nan"), c))
    assert all(torch.equal(a, b) for a, b in zip(before, kept(), strict=True))  # counts, too
    assert not step((h, c)) and not step((h, c)) and not step((h, c))
    later = [s["direction"] for s in optimizers[1].state.values()]
    assert all(torch.equal(a, b) for a, b in zip(directions, later, strict=True))
    assert not step((h, c))  # the fifth makes new ones
    assert not any(
        torch.equal(a, s["direction"])
        for a, s in zip(directions, optimizers[1].state.values(), strict=True)
    )
