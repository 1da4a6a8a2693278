"""What evaluations may take of a run, and how much of the held-out text they read."""

import pytest
import torch

from charrnn.training.batches import Batches
from charrnn.training.budget import Budget
from charrnn.training.settings import new_settings, resolve_settings

STEP = 0.1  # seconds


@pytest.mark.parametrize("n_held_out", [180, 5000, 30_000, 198_523])
@pytest.mark.parametrize("minutes", [0.02, 0.2, 1, 2, 5, 15, 60, 600])
def test_evaluations_read_much_and_cost_little(minutes: float, n_held_out: int) -> None:
    given = new_settings({"minutes": minutes, "val_frac": 0.1}, None)
    settings = resolve_settings(given, False, 10 * n_held_out, lambda *size: STEP)
    batches = Batches(torch.zeros(9 * n_held_out), settings.batch_size, settings.seq_length)
    budget = Budget(settings, batches, n_held_out, STEP)
    assert budget.val_chars >= min(n_held_out, 40_000)
    assert budget.val_chars == n_held_out or budget.val_chars % 64 == 0
    # each piece is read after 256 characters, and the rows of a whole text after 1,024
    rows = max(1, min(64, (n_held_out - 1) // 2048))
    context = 64 * 256 if budget.val_chars < n_held_out else 1024 * (rows - 1)
    read = budget.n_evaluations * (budget.val_chars + context)
    trained = 60 * minutes / STEP * settings.batch_size * settings.seq_length
    assert 1 <= budget.n_evaluations <= max(5, minutes)
    assert budget.n_evaluations == 1 or read / 2.5 <= 0.1 * trained  # without a backward pass
    if minutes >= 5 and n_held_out > 180:
        assert budget.n_evaluations >= 5


def test_a_run_by_epochs_is_planned_without_a_clock() -> None:
    settings = resolve_settings(new_settings({"epochs": 15}, None), True, 2_000_000, lambda: 1 / 0)
    batches = Batches(torch.zeros(1_800_000), settings.batch_size, settings.seq_length)
    plans = [vars(Budget(settings, batches, 198_523, seconds)) for seconds in (1e-3, 10.0)]
    assert plans[0].pop("seconds") < plans[1].pop("seconds")
    assert plans[0] == plans[1] and plans[0]["n_evaluations"] == 15
