"""The settings of a run, and the presets that fill in what the user leaves open."""

from dataclasses import dataclass
from typing import Any

# notebook: the notebook's own; 54 large steps an epoch, so it learns slowly and wants a GPU
# laptop: many small steps; with minutes to spend, the number of updates is what is short
# accelerator: the notebook's model with four times its updates
NAMES = ("notebook", "laptop", "accelerator")
COLUMNS = {
    "epochs": (15, None, 15),
    "minutes": (None, 2.0, None),
    "n_hidden": (1024, None, 1024),  # laptop: 512, 768 from 4 minutes on
    "n_layers": (2, 1, 2),
    "drop_prob": (0.5, None, 0.5),  # laptop: 0.04 for each time that the text is read, 0.5 at most
    "batch_size": (128, 16, 64),
    "seq_length": (256, 64, 128),
    "lr": (1e-3, 4e-3, 2e-3),
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
    """The laptop preset's size and dropout for the time there is, from the runs in benchmarks/.

    A larger model needs more minutes to be better, and a text read more often more dropout.
    """
    minutes, epochs = chosen["minutes"], chosen["epochs"] or float("inf")
    n_hidden = chosen["n_hidden"] or (768 if minutes and minutes >= 4 else 512)
    if minutes:  # 3.4 million characters a minute at 512, as two cores of 2024 read them
        epochs = min(epochs, minutes * 3.4e6 * (512 / n_hidden) ** 2 / n_chars)
    return {"n_hidden": n_hidden, "drop_prob": round(min(0.5, 0.04 * epochs), 2)}


def fill_in(flags: dict[str, Any], on_accelerator: bool, n_chars: int) -> Settings:
    """Settings from the flags given (None: not given) and the preset for the others."""
    given = {name: value for name, value in flags.items() if value is not None}
    if given.get("preset", "auto") == "auto":
        given["preset"] = "accelerator" if on_accelerator else "laptop"
    chosen = dict(PRESETS[given["preset"]])
    if "epochs" in given or "minutes" in given:  # one budget given replaces the preset's
        chosen |= {"epochs": None, "minutes": None}
    # more held-out text would not make the figure better, only each evaluation longer
    chosen |= {"val_frac": min(0.1, 500_000 / n_chars), **given}
    if given["preset"] == "laptop":
        chosen |= grow(chosen, n_chars) | given
    return Settings(**chosen)
