"""The settings of a run, and the presets that fill in what the user leaves open."""

import math
from dataclasses import dataclass
from typing import Any

# notebook: the notebook's own; 54 large steps an epoch, so it learns slowly and wants a GPU
# laptop: many small steps; with minutes to spend, the number of updates is what is short
# accelerator: the notebook's model with four times its updates
NAMES = ("notebook", "laptop", "accelerator")
COLUMNS = {
    "epochs": (15, None, 15),
    "minutes": (None, 2.0, None),
    "n_hidden": (1024, None, 1024),  # None: see grow
    "n_layers": (2, None, 2),
    "drop_prob": (0.5, None, 0.5),
    "batch_size": (128, 16, 64),
    "seq_length": (256, 64, 128),
    "lr": (1e-3, None, 2e-3),
    "cosine": (False, True, True),
    "beta2": (0.999, 0.99, 0.99),
    "weight_decay": (0.0, 0.0, 0.01),
}
PRESETS: dict[str, dict[str, Any]] = {
    name: {key: values[i] for key, values in COLUMNS.items()} for i, name in enumerate(NAMES)
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides how a run goes; saved with it so that it can go on."""

    data: list[str] | None = None  # None: Anna Karenina
    min_count: int = 1
    ckpt: str = "rnn.net"
    init_from: str | None = None
    preset: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    val_frac: float
    seed: int = 1
    prime: str | None = None  # None: the model's default
    cell: str = "lstm"
    n_hidden: int
    n_layers: int
    drop_prob: float
    batch_size: int  # rows of text read side by side
    seq_length: int  # characters between two detachments of the hidden state
    lr: float  # the peak
    clip: float = 1.0  # largest gradient norm
    cosine: bool  # warm-up, then a cosine to zero; else constant
    beta2: float
    weight_decay: float
    epochs: int | None  # either may be None, not both: the first to end ends the run
    minutes: float | None


def grow(chosen: dict[str, Any], n_chars: int) -> dict[str, Any]:
    """What the laptop preset takes for the time there is, from the runs in benchmarks/.

    One layer learns fastest, until it has read the text so often that it knows it by heart: two
    layers, with dropout between them too, go on learning. A short text needs fewer units.
    """
    minutes, epochs = chosen["minutes"] or math.inf, chosen["epochs"] or math.inf
    readings = min(epochs, minutes * 2.5e6 / n_chars)  # by 512 x 1 on two cores of 2023
    n_layers = chosen["n_layers"] or (1 if readings < 10 else 2)
    enough = 256 if n_chars < 200_000 else 384 if n_chars < 1_000_000 else 512
    n_hidden = chosen["n_hidden"] or (512 if n_layers == 1 else enough)
    readings = min(epochs, readings / ((n_hidden / 512) ** 2 * (2 * n_layers - 1)))
    # the fewer steps, the larger they must be
    steps = readings * n_chars / (chosen["batch_size"] * chosen["seq_length"])
    return {
        "n_hidden": n_hidden,
        "n_layers": n_layers,
        "drop_prob": round(min(0.5, 0.05 * readings), 2),
        "lr": round(min(0.024, max(0.004, steps**-0.5)), 4),
    }


def fill_in(flags: dict[str, Any], on_accelerator: bool, n_chars: int) -> Settings:
    """Settings from the flags given (None: not given) and the preset for the others."""
    given = {name: value for name, value in flags.items() if value is not None}
    if given.get("preset", "auto") == "auto":
        given["preset"] = "accelerator" if on_accelerator else "laptop"
    chosen = dict(PRESETS[given["preset"]])
    if "epochs" in given or "minutes" in given:  # one budget given replaces the preset's
        chosen |= {"epochs": None, "minutes": None}
    # more held-out text would not make the figure better, only each evaluation longer
    chosen |= {"val_frac": min(0.1, 200_000 / n_chars), **given}
    if given["preset"] == "laptop":
        chosen |= grow(chosen, n_chars) | given
    return Settings(**chosen)
