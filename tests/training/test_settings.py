"""What the presets fill in, which values there may be, and one table for help and docs."""

import re
from itertools import accumulate, chain, repeat
from typing import Any

import pytest
import torch
from runs import ROOT

from charrnn.errors import UserError
from charrnn.system.values import Number, check_fields
from charrnn.training import budget
from charrnn.training.flags import CHANGEABLE, FLAGS, default_help, make_parser, parse_args
from charrnn.training.settings import (
    PRESETS,
    Settings,
    new_settings,
    relative_step_time,
    resolve_settings,
    resume_settings,
)

SPEED = 2.1e6  # characters a minute, of one layer of 512


def step_time(n_hidden: int, n_layers: int, cell: str, batch_size: int, seq_length: int) -> float:
    """Seconds, on a machine with this speed."""
    return 60 * batch_size * seq_length / SPEED * relative_step_time(n_hidden, n_layers)


FLAGS_TABLE = ROOT / "docs" / "flags.md"


def resolve(n_chars: int = 2_000_000, on_accelerator: bool = False, **given: object) -> Settings:
    return resolve_settings(new_settings(given, None), on_accelerator, n_chars, step_time)


def test_auto_is_laptop_on_a_cpu_and_the_notebooks_size_on_an_accelerator() -> None:
    laptop, accelerator = resolve(), resolve(on_accelerator=True)
    assert (laptop.preset, laptop.minutes, laptop.epochs) == ("laptop", 2.0, None)
    assert (accelerator.n_hidden, accelerator.n_layers, accelerator.epochs) == (1024, 2, 15)
    assert resolve(preset="accelerator").preset == "accelerator"


@pytest.mark.parametrize("preset", ["auto", *PRESETS])
def test_a_flag_always_wins(preset: str) -> None:
    given = {"n_hidden": 7, "n_layers": 3, "drop_prob": 0.0, "batch_size": 9, "seq_length": 11}
    given |= {"lr": 0.5, "clip": 2.0, "val_frac": 0.3, "minutes": 1.5}
    settings = resolve(10_000, preset=preset, **given)
    assert {name: getattr(settings, name) for name in given} == given
    assert settings.epochs is None  # one budget given replaces the preset's


def test_the_notebook_preset_is_the_notebooks() -> None:
    s = resolve(preset="notebook")
    assert (s.epochs, s.n_hidden, s.n_layers, s.drop_prob) == (15, 1024, 2, 0.5)
    assert (s.batch_size, s.seq_length, s.lr, s.clip, s.decay) == (128, 256, 1e-3, 1.0, False)
    assert (s.beta2, s.weight_decay, s.muon_scale) == (0.999, 0.0, None)  # plain Adam
    assert (resolve(preset="laptop").clip, resolve(preset="accelerator").clip) == (0.1, 1.0)


def test_more_time_asks_for_a_larger_model_or_more_dropout_and_a_lower_rate() -> None:
    def laptop(minutes: float, n_chars: int, **given: object) -> tuple[int, int, float]:
        settings = resolve(n_chars, minutes=minutes, **given)
        return settings.n_hidden, settings.n_layers, settings.drop_prob

    sizes = [laptop(minutes, 2_000_000)[:2] for minutes in (2, 5, 7, 15, 60, 180)]
    assert sizes == [(512, 1), (512, 1), (512, 2), (512, 2), (768, 2), (1024, 2)]
    assert laptop(2, 100_000)[:2] < laptop(2, 500_000)[:2] < laptop(15, 2_000_000)[:2]
    assert laptop(1, 2_000_000)[2] < laptop(2, 2_000_000)[2] < laptop(4, 2_000_000)[2]
    assert laptop(1000, 1000)[2] == 0.3 and laptop(1, 10**9)[2] == 0
    assert laptop(2, 2_000_000, n_layers=2)[2] < laptop(2, 2_000_000)[2]  # slower: read less
    few, many = (resolve(minutes=m).lr for m in (1, 5))
    assert 0.004 < many < few <= 0.034  # the fewer steps, the larger
    small = resolve(minutes=2, n_hidden=128)
    assert resolve(minutes=2).drop_prob < small.drop_prob  # reads more
    assert resolve(minutes=2, weight_decay=0.0).drop_prob == resolve(minutes=2).drop_prob
    by_epochs, large = resolve(epochs=10), resolve(epochs=10, n_hidden=1024)
    assert by_epochs.drop_prob == large.drop_prob == 0.25  # 10 / 40: the epochs bind, not the size


def test_a_short_text_is_forgotten_in_one_and_a_half_epochs_and_a_long_one_later() -> None:
    decays = [resolve(n, minutes=3).weight_decay for n in (20_000, 2_000_000, 10**9)]
    assert decays == [0.06, 0.02, 0.02]
    s = resolve(600_000, minutes=3)
    a_step = s.lr * s.muon_scale * s.weight_decay  # what a hidden matrix loses
    epochs = 1 / a_step / (540_000 / (s.batch_size * s.seq_length))
    assert epochs == pytest.approx(1.5, abs=0.2)  # the decay is rounded to hundredths
    assert resolve(2_000_000, minutes=60).weight_decay == 0.02  # however often it is read


def test_characters_are_hidden_where_dropout_is_high_and_targets_smoothed() -> None:
    presets = {name: resolve(preset=name, epochs=15) for name in PRESETS}
    smoothing = {name: settings.label_smoothing for name, settings in presets.items()}
    assert smoothing == {"notebook": 0, "laptop": 0.01, "accelerator": 0.01}
    hidden = {name: settings.input_drop for name, settings in presets.items()}
    assert hidden["notebook"] == 0  # it is the notebook's own
    assert hidden["accelerator"] == pytest.approx(0.08)
    assert hidden["laptop"] == pytest.approx(0.04)
    assert resolve(minutes=5).input_drop == resolve(epochs=15, drop_prob=0.0).input_drop == 0


def test_a_slow_moment_does_not_decide_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    # the clock is read before and after the first step, then around each four
    clock = accumulate(chain.from_iterable((0.0, s) for s in chain([1.4] + [0.9] * 2, repeat(0.1))))
    monkeypatch.setattr(budget.time, "perf_counter", lambda: next(clock))
    seconds = budget.seconds_per_step(
        9, torch.device("cpu"), torch.float32, 8, 1, "lstm", 2, 4, at_least=2.5
    )
    assert seconds == pytest.approx(0.1 / 4)


def test_dropout_and_rate_follow_from_the_speed_of_the_model_itself() -> None:
    """A small model is slower than its size says: the step has a fixed cost."""

    def slow(n_hidden: int, *others: Any) -> float:
        return max(0.05, step_time(n_hidden, *others))

    settings = resolve_settings(new_settings({"n_hidden": 64}, None), False, 2_000_000, slow)
    steps = 120 / 0.05
    assert settings.drop_prob == round(steps * 32 * 64 / 1_800_000 / 40, 2)
    assert settings.lr == round(0.17 * steps**-0.25, 4)
    asked = []
    given = {"n_hidden": 64, "n_layers": 2, "cell": "gru", "batch_size": 8}
    resolve_settings(
        new_settings(given, None), False, 2_000_000, lambda *size: asked.append(size) or 1.0
    )
    assert asked == [(64, 2, "gru", 8, 64)]  # the size is not to be chosen


def test_a_short_text_gets_batches_that_fit() -> None:
    for n_chars in (300, 431, 1000, 5000, 10_000):
        s = resolve(n_chars)
        n_train = n_chars - round(n_chars * s.val_frac)
        assert 4 * s.batch_size * (s.seq_length + 1) <= n_train or s.batch_size == 1
        assert s.batch_size * (s.seq_length + 1) <= n_train
    assert (resolve(5000).batch_size, resolve(100_000).batch_size) == (17, 32)


def test_held_out_text_has_a_limit() -> None:
    assert resolve(1_000_000).val_frac == 0.1
    assert resolve(10**9).val_frac * 10**9 == pytest.approx(200_000)


def test_a_run_that_goes_on_can_have_another_budget_and_nothing_else() -> None:
    saved = resolve(minutes=2.0)
    longer = resolve_settings(resume_settings(saved, {"minutes": 5.0}), False, 2_000_000, list)
    assert longer.minutes == 5 and longer.lr == saved.lr and longer.n_hidden == saved.n_hidden
    by_epochs = resolve_settings(resume_settings(saved, {"epochs": 3}), False, 2_000_000, list)
    assert (by_epochs.epochs, by_epochs.minutes) == (3, None)
    with pytest.raises(UserError, match="leave --lr out"):
        resume_settings(saved, {"lr": 0.1})


BAD = {
    "batch_size": (0, -1, 2.0, "16", True, None, 10**7),
    "val_frac": (0.0, 1.0, float("inf"), float("nan"), "0.1"),
    "epochs": (-1, 0, 1.5),
    "dtype": ("load", "", 3, None),
    "data": ([], "a.txt", [1], [""]),
    "drop_prob": (1.0, -0.1, [0.5]),
    "preset": ("\x1b[2J", {}),
    "decay": (1, "yes", None),
    "lr": (0.0, 1e300, float("nan")),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_run_could_have_is_refused(name: str) -> None:
    good = vars(resolve())
    check_fields(Settings, good, "x")
    for value in BAD[name]:
        with pytest.raises(UserError, match=name) as caught:
            check_fields(Settings, good | {name: value}, "x")
        assert "\x1b" not in str(caught.value)
    for wrong in ({}, good | {"more": 1}, None, [good]):
        with pytest.raises(UserError):
            check_fields(Settings, wrong, "x")


def test_numbers() -> None:
    assert 3 in Number(int, 1, 5) and True not in Number(int, 0) and 3.0 not in Number(int, 1)
    assert 1 in Number(float, 0, 1) and 1 not in Number(float, 0, 1, exclusive_max=True)
    assert 0 not in Number(float, 0, exclusive_min=True) and "1" not in Number(float)
    assert str(Number(int, 1, 9)) == "a whole number at least 1 and at most 9"


def test_every_flag_is_in_the_help_and_in_the_docs_with_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")  # argparse breaks lines at hyphens
    shown = " ".join(make_parser().format_help().split())
    table = FLAGS_TABLE.read_text(encoding="utf-8").partition("| `train.py` | what |")[2]
    row = re.compile(r"^\| `--([a-z-]+)[^|]*\| ([^|]*?) \| ([^|]*?) ?\|", re.MULTILINE)
    rows = {name: words for name, *words in row.findall(table.partition("\n\n")[0])}
    for name, flag in FLAGS.items():
        words, default = flag.metadata["help"], default_help(flag)
        assert rows.pop(name.replace("_", "-")) == [words, default], name
        assert (f"{words} (default: {default})" if default else words) in shown, name
    resume, _ = rows.pop("resume")
    assert not rows and resume.partition(";")[0] in shown
    may = f"{', '.join(CHANGEABLE[:-1])} and {CHANGEABLE[-1]}"
    assert f"only {may} may be given with it" in resume


def test_the_words_for_a_default_are_what_the_preset_does() -> None:
    words = {name: default_help(flag) for name, flag in FLAGS.items()}
    often, once = resolve(1000, minutes=1000), resolve(10**9, minutes=0.1)
    assert f"1/40 for each time the text is read, at most {often.drop_prob}" in words["drop_prob"]
    assert f"between {often.lr} and {once.lr};" in words["lr"]
    assert f"laptop {once.batch_size}, fewer" in words["batch_size"]
    assert f"laptop {once.seq_length}, fewer" in words["seq_length"]
    share, most = re.match("(.*), at most (.*) characters", words["val_frac"]).groups()
    assert resolve(1000).val_frac == float(share)
    assert resolve(10**9).val_frac * 10**9 == pytest.approx(int(most.replace(",", "")))


def test_near_misses_are_understood_or_answered() -> None:
    assert parse_args(["--n_hidden", "8", "--cell", "LSTM"]) == {"n_hidden": 8, "cell": "lstm"}
    assert parse_args(["my.txt"]) == {"data": ["my.txt"]}
    with pytest.raises(UserError, match="did you mean --epochs"):
        parse_args(["--epoch", "3"])
    with pytest.raises(UserError, match="write --prime=-x"):
        parse_args(["--prime", "-x"])
    with pytest.raises(UserError, match="--prime: its value cannot be --"):
        parse_args(["--prime=--"])
    with pytest.raises(UserError, match="unrecognized"):
        parse_args(["my.txt", "--data", "other.txt"])


def test_a_cell_without_gates_gets_a_tenth_of_the_rate() -> None:
    flags = ["--minutes", "2", "--cell"]
    lstm, gru, rnn = (
        resolve(2_000_000, **parse_args([*flags, cell])) for cell in ("lstm", "gru", "rnn")
    )
    assert lstm.lr == gru.lr and rnn.lr == pytest.approx(lstm.lr / 10, abs=1e-4)
    assert resolve(2_000_000, minutes=2, cell="rnn", lr=0.03).lr == 0.03
