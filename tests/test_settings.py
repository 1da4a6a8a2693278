"""What the presets fill in."""

import pytest

from charrnn.settings import PRESETS, fill_in

NAMES = "epochs minutes n_hidden n_layers drop_prob batch_size seq_length lr clip val_frac data"
NOT_GIVEN = dict.fromkeys([*NAMES.split(), "prime", "init_from"])
ALWAYS = {"ckpt": "rnn.net", "device": "cpu", "dtype": "auto", "seed": 1, "cell": "lstm"}
FLAGS = NOT_GIVEN | ALWAYS | {"min_count": 1, "preset": "auto"}


def test_auto_is_laptop_on_a_cpu_and_the_notebooks_size_on_an_accelerator() -> None:
    laptop, accelerator = (fill_in(FLAGS, there, 2_000_000) for there in (False, True))
    assert (laptop.preset, laptop.minutes, laptop.epochs) == ("laptop", 2.0, None)
    assert (accelerator.n_hidden, accelerator.n_layers, accelerator.epochs) == (1024, 2, 15)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_flag_always_wins(preset: str) -> None:
    given = {"n_hidden": 7, "n_layers": 3, "drop_prob": 0.0, "batch_size": 9, "seq_length": 11}
    given |= {"lr": 0.5, "clip": 2.0, "val_frac": 0.3, "minutes": 1.5}
    settings = fill_in(FLAGS | given | {"preset": preset}, False, 10_000)
    assert {name: getattr(settings, name) for name in given} == given
    assert settings.epochs is None  # one budget given replaces the preset's


def test_the_notebook_preset_is_the_notebooks() -> None:
    s = fill_in(FLAGS | {"preset": "notebook"}, False, 2_000_000)
    assert (s.epochs, s.n_hidden, s.n_layers, s.drop_prob) == (15, 1024, 2, 0.5)
    assert (s.batch_size, s.seq_length, s.lr, s.clip, s.cosine) == (128, 256, 1e-3, 1.0, False)
    assert (s.beta2, s.weight_decay) == (0.999, 0.0)  # plain Adam


def test_more_reading_asks_for_a_second_layer_and_more_dropout_and_a_lower_rate() -> None:
    def laptop(minutes: float, n_chars: int, **given: object) -> tuple[int, int, float]:
        settings = fill_in(FLAGS | {"minutes": minutes} | given, False, n_chars)
        return settings.n_hidden, settings.n_layers, settings.drop_prob

    assert laptop(2, 2_000_000)[:2] == (512, 1) and laptop(15, 2_000_000)[:2] == (512, 2)
    assert laptop(2, 100_000)[:2] < laptop(2, 500_000)[:2] < laptop(15, 2_000_000)[:2]
    assert laptop(1, 2_000_000)[2] < laptop(2, 2_000_000)[2] < laptop(5, 2_000_000)[2]
    assert laptop(1000, 1000)[2] == 0.5 and laptop(1, 10**9)[2] == 0
    assert laptop(2, 2_000_000, n_layers=2)[2] < laptop(2, 2_000_000)[2]  # slower: read less
    few, many = (fill_in(FLAGS | {"minutes": m}, False, 2_000_000).lr for m in (1, 5))
    assert 0.004 < many < few <= 0.024  # the fewer steps, the larger
    only_epochs = fill_in(FLAGS | {"epochs": 4}, False, 1000)
    assert (only_epochs.n_layers, only_epochs.drop_prob) == (1, 0.2)


def test_held_out_text_has_a_limit() -> None:
    assert fill_in(FLAGS, False, 1_000_000).val_frac == 0.1
    assert fill_in(FLAGS, False, 10**9).val_frac * 10**9 == pytest.approx(200_000)
