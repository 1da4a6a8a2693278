"""The settings of a run: which values each may have, and the presets for what is left open."""

import difflib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import torch

from charrnn.errors import UserError
from charrnn.network.device import DTYPES
from charrnn.network.model import CELLS, CharRNN
from charrnn.system.values import AnyText, Number, Texts, check_fields, check_value, one_of

PRESETS = ("auto", "notebook", "laptop", "accelerator")
COUNT = Number(int, 1, 1_000_000)
POSITIVE = Number(float, 0, 1e9, exclusive_min=True)
BELOW_1 = Number(float, 0, 1, exclusive_max=True)
BETWEEN_0_AND_1 = Number(float, 0, 1, exclusive_min=True, exclusive_max=True)
CHANGEABLE = (
    "data",
    "device",
    "dtype",
    "epochs",
    "minutes",
    "patience",
    "prime",
    "tensorboard",
)  # when a run goes on


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides how a run goes; saved with it so that it can go on."""

    data: list[str] | None = one_of(Texts(), None, optional=True)  # None: Anna Karenina
    encoding: str = one_of(AnyText(), "utf-8")
    min_count: int = one_of(COUNT, 1)
    val_frac: float = one_of(BETWEEN_0_AND_1)
    val_split: str = one_of(("end", "lines", "paragraphs", "files"), "end")
    ckpt: str = one_of(AnyText(), "rnn.net")
    keep: str = one_of(("best", "all"), "best")
    tensorboard: str | None = one_of(AnyText(), None, optional=True)
    init_from: str | None = one_of(AnyText(), None, optional=True)
    preset: str = one_of(PRESETS, "auto")
    device: str = one_of(AnyText(), "auto")
    dtype: str = one_of(DTYPES, "auto")
    seed: int = one_of(Number(int, 0, 2**31 - 1), 1)
    prime: str | None = one_of(AnyText(), None, optional=True)  # None: the model's default
    cell: str = one_of(CELLS, "lstm")
    n_hidden: int = one_of(COUNT)
    n_layers: int = one_of(COUNT)
    drop_prob: float = one_of(BELOW_1)
    batch_size: int = one_of(COUNT)  # rows of text read side by side
    seq_length: int = one_of(COUNT)  # characters between two detachments of the hidden state
    lr: float = one_of(POSITIVE)  # the peak
    clip: float = one_of(POSITIVE)  # largest gradient norm
    decay: bool = one_of((True, False))  # of the learning rate, to zero; else it is constant
    # Muon moves the hidden matrices at this many times the rate; None: they move as the rest
    muon_scale: float | None = one_of(POSITIVE, optional=True)
    beta2: float = one_of(BELOW_1)
    weight_decay: float = one_of(Number(float, 0, 1e9))
    # either may be None, not both: the first to end ends the run
    epochs: int | None = one_of(COUNT, optional=True)
    minutes: float | None = one_of(POSITIVE, optional=True)
    patience: int | None = one_of(COUNT, None, optional=True)  # evaluations without a better one

    @property
    def input_drop(self) -> float:
        """Share of the characters hidden in training: some where a text is read so often that it
        wants much dropout; a model that has read little learns less with it."""
        if self.preset == "notebook":
            return 0.0
        return round(max(0.0, 0.4 * (self.drop_prob - 0.2)), 2)

    @property
    def cold_starts(self) -> float:
        """Probability that a row of a batch starts from zeros instead of the state carried to it.

        A model that has only seen carried states can lose its way for thousands of characters when
        it reads from zeros in the middle of a text, as after a prime (benchmarks/README.md).
        """
        return 0.0 if self.preset == "notebook" else 0.02

    @property
    def label_smoothing(self) -> float:
        """Share of each target that is spread evenly over all characters in training (Szegedy et
        al. 2016, arXiv:1512.00567, section 7)."""
        return 0.0 if self.preset == "notebook" else 0.01


# notebook: the notebook's own; 54 large steps an epoch, so it learns slowly and wants a GPU
NOTEBOOK: dict[str, Any] = {
    "epochs": 15,
    "minutes": None,
    "n_hidden": 1024,
    "n_layers": 2,
    "drop_prob": 0.5,
    "batch_size": 128,
    "seq_length": 256,
    "lr": 1e-3,
    "clip": 1.0,
    "decay": False,
    "muon_scale": None,
    "beta2": 0.999,
    "weight_decay": 0.0,
}
# the notebook's model with four times its updates
ACCELERATOR = NOTEBOOK | {
    "drop_prob": 0.4,
    "batch_size": 64,
    "seq_length": 128,
    "lr": 0.01,
    "decay": True,
    "muon_scale": 6.0,
    "beta2": 0.99,
    "weight_decay": 0.06,
}
# what the laptop preset decides by the speed of the machine
BY_SPEED = {"n_hidden", "n_layers", "batch_size", "seq_length", "drop_prob", "weight_decay", "lr"}
StepTime = Callable[[int, int, str, int, int], float]
# small steps: with minutes to spend, the number of updates is what is short
ROWS, LENGTH = 32, 64  # of a batch, where the text is long enough
MOST_DROPOUT = 0.3  # of the laptop preset, however often a text is read
LAPTOP: dict[str, Any] = {
    "epochs": None,
    "minutes": 2.0,
    "clip": 0.1,  # about the norm halfway: earlier gradients, which are larger, weigh no more
    "decay": True,
    "muon_scale": 3.0,
    "beta2": 0.99,
}


def one_budget(chosen: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``chosen`` with what is given; one budget given (epochs or minutes) replaces the others."""
    if "epochs" in given or "minutes" in given:
        chosen = chosen | {"epochs": None, "minutes": None}
    return chosen | given


def resume_settings(saved: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that goes on. Raises UserError for what it cannot change."""
    reject_flags(given.keys() - set(CHANGEABLE), "a run that goes on keeps its settings")
    # a file may not say where else to write
    return one_budget(asdict(saved) | {"tensorboard": None}, given)


def check_given(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call from Python as settings: without those that are None, paths, dtypes
    and devices by their names, ``data`` as a list.

    Raises UserError that names the first argument that is unknown, or whose value is not allowed.
    """
    known = {f.name: f.metadata for f in fields(Settings)}
    known["resume"] = known["init_from"]  # no setting, but a file's name as well
    plain: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(
                f"{name}: no such argument"
                + (f"; did you mean {near[0]}?" if near else "; train.py --help lists them")
            )
        if value is None:
            continue
        if name == "data":
            value = [value] if isinstance(value, (str, os.PathLike)) else value
            value = [*map(plain_value, value)] if isinstance(value, (list, tuple)) else value
        plain[name] = plain_value(value)
        check_value(name, plain[name], known[name], "settings")
    return plain


def plain_value(value: Any) -> Any:
    """A path, dtype or device by its name; anything else as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    return value


def new_settings(given: dict[str, Any], source: CharRNN | None) -> dict[str, Any]:
    """``given`` and the defaults that no preset decides; of the size of the model to start from.

    Raises UserError for another size than that.
    """
    kept = {}
    if source is not None:
        kept = {name: getattr(source, name) for name in ("n_hidden", "n_layers", "cell")}
    others = {name for name in kept if given.get(name, kept[name]) != kept[name]}
    reject_flags(others, "--init-from keeps the model's")
    defaults = {f.name: f.default for f in fields(Settings) if f.default is not MISSING}
    return defaults | given | kept


def reject_flags(names: Iterable[str], why: str) -> None:
    """Raises UserError for the first of these settings."""
    for name in sorted(names):
        flag = "--" + name.replace("_", "-")
        raise UserError(f"{flag}: {why}; leave {flag} out")


def resolve_settings(
    given: dict[str, Any],
    on_accelerator: bool,
    n_chars: int,
    step_time: StepTime,
) -> Settings:
    """Settings from what ``new_settings`` or ``resume_settings`` gave, and the preset for the rest.

    ``n_chars``: of the whole text; ``step_time(n_hidden, n_layers, cell, batch_size, seq_length)``
    returns how many seconds a training step takes on this machine. Raises UserError for a value
    that is not allowed.
    """
    preset = given["preset"]
    if preset == "auto":
        preset = "accelerator" if on_accelerator else "laptop"
    chosen = {"notebook": NOTEBOOK, "laptop": LAPTOP, "accelerator": ACCELERATOR}[preset]
    # more held-out text would not make the figure better, only each evaluation longer
    chosen = one_budget(chosen | {"val_frac": min(0.1, 200_000 / n_chars)}, given)
    if preset == "laptop" and not chosen.keys() >= BY_SPEED:
        chosen = laptop_defaults(chosen, n_chars, step_time) | chosen
    chosen["preset"] = preset
    check_fields(Settings, chosen, "settings")
    if not (chosen["epochs"] or chosen["minutes"]):
        raise UserError("settings: neither epochs nor minutes; give one of them")
    for f in fields(Settings):  # from Python, 0 may be given for 0.0
        if isinstance(f.metadata["values"], Number) and chosen[f.name] is not None:
            chosen[f.name] = f.metadata["values"].kind(chosen[f.name])
    return Settings(**chosen)


def laptop_defaults(chosen: dict[str, Any], n_chars: int, step_time: StepTime) -> dict[str, Any]:
    """What the laptop preset takes for the text and the time there is, from the runs in
    benchmarks/; ``chosen`` holds the budget and what the user decided.

    A short text needs fewer and shorter rows. The size follows from the speed of one layer of 512,
    dropout and learning rate from that of the model itself.
    """
    n_train = n_chars - round(n_chars * chosen["val_frac"])
    seq_length = chosen.get("seq_length", max(1, min(LENGTH, n_train // 8)))
    batch_size = chosen.get("batch_size", max(1, min(ROWS, n_train // (4 * (seq_length + 1)))))
    per_epoch = n_train / (batch_size * seq_length)
    seconds = 60 * chosen["minutes"] if chosen["minutes"] else math.inf
    n_hidden, n_layers = chosen.get("n_hidden"), chosen.get("n_layers")
    if n_hidden is None or n_layers is None:
        affordable = math.inf
        if chosen["minutes"]:
            affordable = ROWS * LENGTH * seconds / step_time(512, 1, "lstm", ROWS, LENGTH)
        size = laptop_size(n_chars, affordable, chosen["epochs"] or 0)
        n_hidden, n_layers = n_hidden or size[0], n_layers or size[1]
    steps = chosen["epochs"] * per_epoch if chosen["epochs"] else math.inf
    fits = batch_size * (seq_length + 1) <= n_train  # else the run is refused: nothing to time
    if chosen["minutes"] and fits:
        itself = n_hidden, n_layers, chosen["cell"], batch_size, seq_length
        steps = min(steps, seconds / step_time(*itself))
    epochs = steps / per_epoch
    # the fewer steps, the larger they must be
    lr = round(min(0.034, max(0.004, 0.17 * steps**-0.25)), 4)
    # hidden matrices forget a short text in 1.5 epochs (Wang and Aitchison 2024, arXiv:2405.13698:
    # a constant number of epochs, whatever the length)
    weight_decay = 1 / (1.5 * per_epoch * LAPTOP["muon_scale"] * lr)
    return {
        "n_hidden": n_hidden,
        "n_layers": n_layers,
        "batch_size": batch_size,
        "seq_length": seq_length,
        "drop_prob": round(min(MOST_DROPOUT, epochs / 40), 2),
        "weight_decay": round(min(0.06, max(0.02, weight_decay)), 2),
        "lr": lr,
    }


def laptop_size(n_chars: int, affordable: float, epochs: int) -> tuple[int, int]:
    """(units, layers): the largest that still take 2,400 steps, and more the wider they are. They
    learn more than a smaller model that reads the same text again and again, and soon can learn no
    more of it; a short text, which is read often in any case, needs fewer units."""
    if math.isinf(affordable):  # by epochs alone
        return (512, 1) if epochs < 6 else (512, 2)
    if n_chars < 1_000_000 and affordable >= 4 * n_chars:
        return (256 if n_chars < 200_000 else 384), 2
    for n_hidden, n_layers in ((1024, 2), (768, 2), (512, 2)):
        steps = affordable / cost(n_hidden, n_layers) / (ROWS * LENGTH)
        if steps >= 2400 * (n_hidden / 512) ** 2:
            return n_hidden, n_layers
    return 512, 1


def cost(n_hidden: int, n_layers: int) -> float:
    """How many times as long as one layer of 512 a model of this size takes for the same text."""
    return (n_hidden / 512) ** 2 * (1.8 * n_layers - 0.8)
