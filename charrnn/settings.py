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
        "n_hidden": 512,  # 768 from 4 minutes on
        "n_layers": 1,
        "drop_prob": None,  # 0.04 for each time that the text is read, 0.5 at most
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


def grow(settings: dict[str, Any], given: dict[str, Any], n_chars: int) -> dict[str, Any]:
    """The laptop preset's size and dropout for the time there is, from the runs in benchmarks/.

    A larger model needs more minutes to be better, and a text read more often more dropout.
    """
    minutes = given.get("minutes", settings.get("minutes"))
    n_hidden = given.get("n_hidden", 768 if minutes and minutes >= 4 else 512)
    epochs = given.get("epochs", float("inf"))
    if minutes:  # 3.4 million characters a minute at 512, as two cores of 2024 read them
        epochs = min(epochs, minutes * 3.4e6 * (512 / n_hidden) ** 2 / n_chars)
    return {**settings, "n_hidden": n_hidden, "drop_prob": round(min(0.5, 0.04 * epochs), 2)}


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
    if preset == "laptop":
        defaults = grow(defaults, given, n_chars)
    optional = {"data": None, "prime": None, "init_from": None}
    # more held-out text would not make the figure better, only each evaluation longer
    optional["val_frac"] = min(0.1, 500_000 / n_chars)
    return Settings(**{**optional, **defaults, **given, "preset": preset})
