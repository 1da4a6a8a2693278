"""The settings of a run, and the presets that fill in what the user leaves open."""

from dataclasses import dataclass
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # the notebook's own: 54 large steps an epoch, so it learns slowly and wants a GPU
    "notebook": {
        "epochs": 15,
        "n_hidden": 1024,
        "n_layers": 2,
        "drop_prob": 0.5,
        "batch_size": 128,
        "seq_length": 256,
        "lr": 1e-3,
        "clip": 1.0,
        "cosine": False,
        "beta2": 0.999,
        "weight_decay": 0.0,
    },
    # many small steps: with minutes to spend, the number of updates is what is short
    "laptop": {
        "minutes": 2.0,
        "n_hidden": 512,
        "n_layers": 1,
        "drop_prob": 0.15,
        "batch_size": 16,
        "seq_length": 64,
        "lr": 4e-3,
        "clip": 1.0,
        "cosine": True,
        "beta2": 0.99,
        "weight_decay": 0.0,
    },
    # the notebook's model with four times its updates
    "accelerator": {
        "epochs": 15,
        "n_hidden": 1024,
        "n_layers": 2,
        "drop_prob": 0.5,
        "batch_size": 64,
        "seq_length": 128,
        "lr": 2e-3,
        "clip": 1.0,
        "cosine": True,
        "beta2": 0.99,
        "weight_decay": 0.01,
    },
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides how a run goes; saved with it so that it can go on."""

    data: list[str] | None  # None: Anna Karenina
    min_count: int
    ckpt: str
    init_from: str | None
    preset: str
    device: str
    dtype: str
    val_frac: float
    seed: int
    prime: str | None  # None: the model's default
    cell: str
    n_hidden: int
    n_layers: int
    drop_prob: float
    batch_size: int  # rows of text read side by side
    seq_length: int  # characters between two detachments of the hidden state
    lr: float  # the peak
    clip: float  # largest gradient norm
    cosine: bool  # warm-up, then a cosine to zero; else constant
    beta2: float
    weight_decay: float
    epochs: int | None = None  # either may be None, not both: the first to end ends the run
    minutes: float | None = None


def fill_in(flags: dict[str, Any], on_accelerator: bool, n_chars: int) -> Settings:
    """Settings from the flags given (None: not given) and the preset for the others."""
    preset = flags["preset"]
    if preset == "auto":
        preset = "accelerator" if on_accelerator else "laptop"
    given = {name: value for name, value in flags.items() if value is not None}
    defaults = dict(PRESETS[preset])
    if "epochs" in given or "minutes" in given:  # one budget given replaces the preset's
        defaults.pop("epochs", None)
        defaults.pop("minutes", None)
    optional = {"data": None, "prime": None, "init_from": None}
    # more held-out text would not make the figure better, only each evaluation longer
    optional["val_frac"] = min(0.1, 500_000 / n_chars)
    return Settings(**{**optional, **defaults, **given, "preset": preset})
