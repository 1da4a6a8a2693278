"""The settings of a run: one table of what each may be and how --help explains it, the presets,
and what the laptop preset works out."""

import difflib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from functools import partial
from typing import Any

import torch

from charrnn.errors import UserError
from charrnn.network.device import DTYPES
from charrnn.network.model import CELLS, CharRNN
from charrnn.system.values import (
    TEXT,
    TEXTS,
    TRUE_OR_FALSE,
    Choice,
    Number,
    Rule,
    check_fields,
    check_value,
    one_of,
)

COUNT = Number(int, 1, 1_000_000)
POSITIVE = Number(float, 0, 1e9, exclusive_min=True)
BELOW_1 = Number(float, 0, 1, exclusive_max=True)
BETWEEN_0_AND_1 = Number(float, 0, 1, exclusive_min=True, exclusive_max=True)

# the notebook's own: 54 large steps an epoch, so it learns slowly and needs a GPU
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
PRESETS: dict[str, dict[str, Any]] = {
    "notebook": NOTEBOOK,
    # laptop_defaults adds what depends on the text and on the speed of the machine
    "laptop": {
        "epochs": None,
        "minutes": 2.0,
        "clip": 0.1,  # about the norm halfway: earlier gradients, which are larger, weigh no more
        "decay": True,
        "muon_scale": 3.0,
        "beta2": 0.99,
    },
    # the notebook's model with four times its updates
    "accelerator": NOTEBOOK
    | {
        "drop_prob": 0.4,
        "batch_size": 64,
        "seq_length": 128,
        "lr": 0.01,
        "decay": True,
        "muon_scale": 6.0,
        "beta2": 0.99,
        "weight_decay": 0.06,
    },
}
HELD_OUT, MOST_HELD_OUT = 0.1, 200_000  # share and characters of the text, in every preset
# of the laptop preset, whose steps are small, since a few minutes allow few updates
BATCH_SIZE, SEQ_LENGTH = 32, 64  # if the text is long enough
FEWEST_STEPS = 2400  # for which a model of 512 x 2 is chosen
MOST_DROPOUT = 0.3  # however often a text is read
LEAST_LR, MOST_LR = 0.004, 0.034

GROUPS = ("text", "model", "length of the run", "training", "files")  # of --help, in this order


def setting(
    group: str,
    values: Number | Rule | Choice,
    help: str,
    default: Any = MISSING,
    metavar: str = "N",
    shown: str = "",
    optional: bool = False,
    changeable: bool = False,
    local: bool = False,
) -> Any:
    """Return a field of Settings that has a flag.

    ``shown`` is the default in words, for --help, if its value does not say enough or the laptop
    preset works it out. A resumed run may change a ``changeable`` setting. The model's file leaves
    out the ``local`` ones, which do not decide its numbers: names of files and devices.
    """
    words = {"group": group, "help": help, "metavar": metavar, "shown": shown}
    return one_of(values, default, optional, **words, changeable=changeable, local=local)


text, model, _, training, _ = (partial(setting, group) for group in GROUPS)
length = partial(setting, "length of the run", optional=True, changeable=True)
files = partial(setting, "files", local=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run. They are saved with it, so that it can be resumed.

    Their order is that of the model's file: another order gives other bytes.
    """

    data: list[str] | None = text(  # noqa: RUF009, it makes a dataclass field
        TEXTS,
        "text files, a folder, - for standard input, or python-docs, the manual that comes with "
        "Python; a table is read unchanged",
        None,
        "PATH",
        "data/anna.txt, downloaded once",
        changeable=True,
        local=True,
    )
    encoding: str = text(TEXT, "of the text; UTF-16 and UTF-32 are recognised", "utf-8", "NAME")
    min_count: int = text(
        COUNT, "characters that occur less often are all learned as U+FFFD", 1, shown="1, none"
    )
    val_frac: float = text(
        BETWEEN_0_AND_1,
        "share of the text to hold out, for the evaluations",
        metavar="P",
        shown=f"{HELD_OUT}, at most {MOST_HELD_OUT:,} characters",
    )
    val_split: str = text(
        Choice(("end", "lines", "paragraphs", "files")),
        "end: hold out the end of the text; lines, paragraphs (between blank lines, or lines such "
        "as =====) or files: some of them from all over it, chosen by --seed",
        "end",
    )
    ckpt: str = files(TEXT, "file to write the model to", "rnn.net", "FILE")
    keep: str = files(
        Choice(("best", "all")),
        "best: only the best model; all: also that of each evaluation, as CKPT.step001234.net",
        "best",
    )
    tensorboard: str | None = files(
        TEXT,
        "folder to write the log to for TensorBoard, too; needs that package",
        None,
        "DIR",
        changeable=True,
    )
    prime: str | None = files(
        TEXT,
        "start of the sample shown after each evaluation",
        None,
        "TEXT",
        "a newline, or the model's most frequent character",
        changeable=True,
    )
    preset: str = model(
        Choice(("auto", *PRESETS)),
        "chooses every setting that is not given; notebook: the original notebook's; laptop: those "
        "that learn most in a few minutes on a CPU; accelerator: the notebook's model with a "
        "better recipe; auto: laptop on a CPU, else accelerator",
        "auto",
    )
    device: str = training(
        TEXT,
        "auto, cpu, cuda, cuda:N or mps",
        "auto",
        "NAME",
        "auto: the fastest one",
        changeable=True,
        local=True,
    )
    dtype: str = training(
        Choice(DTYPES),
        "precision of the step's products; weights stay float32",
        "auto",
        shown="auto: bfloat16 on a CPU that has it in hardware, float16 on CUDA, else float32",
        changeable=True,
    )
    seed: int = training(
        Number(int, 0, 2**31 - 1),
        "of every random number; same seed, text and machine: the same bytes, on a CPU by --epochs",
        1,
    )
    cell: str = model(Choice(CELLS), "kind of recurrent layer", "lstm")
    n_hidden: int = model(
        COUNT,
        "units per layer",
        shown="512, up to 1024 if there is time, 256 or 384 for a short text that is read often",
    )
    n_layers: int = model(
        COUNT,
        "recurrent layers",
        shown=f"1, or 2 if there is time for {FEWEST_STEPS:,} steps, or to read a short text "
        "four times",
    )
    drop_prob: float = model(
        BELOW_1,
        "share of each layer's output dropped in training",
        metavar="P",
        shown=f"1/40 for each time the text is read, at most {MOST_DROPOUT}",
    )
    init_from: str | None = model(
        TEXT,
        "start from this model, at its size; new characters get new rows",
        None,
        "FILE",
        local=True,
    )
    batch_size: int = training(
        COUNT,
        "rows of text read side by side; fewer means more updates",
        shown=f"{BATCH_SIZE}, fewer for a short text",
    )
    seq_length: int = training(
        COUNT,
        "characters that gradients flow back through",
        shown=f"{SEQ_LENGTH}, fewer for a short text",
    )
    lr: float = training(
        POSITIVE,
        "peak learning rate of AdamW; Muon's, for the hidden matrices, is a multiple of it",
        metavar="X",
        shown=f"0.17 / steps^0.25, between {LEAST_LR} and {MOST_LR}; a tenth for rnn",
    )
    clip: float = training(POSITIVE, "largest gradient norm", metavar="X")
    # without a flag: only the presets set these
    decay: bool = one_of(TRUE_OR_FALSE)  # the learning rate falls to zero; else it is constant
    # Muon's learning rate is this multiple of lr; None: AdamW moves the hidden matrices, too
    muon_scale: float | None = one_of(POSITIVE, optional=True)
    beta2: float = one_of(BELOW_1)
    weight_decay: float = one_of(Number(float, 0, 1e9))
    # either may be None, not both: the first to end ends the run
    epochs: int | None = length(COUNT, "passes over the training text")
    minutes: float | None = length(
        POSITIVE, "wall-clock minutes; with --epochs, whichever ends first", metavar="M"
    )
    patience: int | None = length(COUNT, "end after N evaluations without a better one", None)

    @property
    def input_drop(self) -> float:
        """The share of the characters hidden in training. It grows with dropout, which a text needs
        that is read often; a model that has read little learns less with it."""
        if self.preset == "notebook":
            return 0.0
        return round(max(0.0, 0.4 * (self.drop_prob - 0.2)), 2)

    @property
    def cold_starts(self) -> float:
        """The probability that a row of a batch starts from zeros, not from the carried state.

        A model that has only seen carried states can write nonsense for thousands of characters
        when it starts from zeros in the middle of a text, as it does after a prime.
        """
        return 0.0 if self.preset == "notebook" else 0.02

    @property
    def label_smoothing(self) -> float:
        """The share of each target that is spread evenly over all characters in training (Szegedy
        et al. 2016, arXiv:1512.00567, section 7)."""
        return 0.0 if self.preset == "notebook" else 0.01


CHANGEABLE = sorted(f.name for f in fields(Settings) if f.metadata.get("changeable"))
LOCAL = [f.name for f in fields(Settings) if f.metadata.get("local")]
StepTime = Callable[[int, int, str, int, int], float]


def with_one_budget(chosen: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return ``chosen`` updated with ``given``. If that has epochs or minutes, the budget in
    ``chosen`` is dropped."""
    if "epochs" in given or "minutes" in given:
        chosen = chosen | {"epochs": None, "minutes": None}
    return chosen | given


def resume_settings(saved: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a resumed run. Raises UserError for one that may not change."""
    reject_flags(given.keys() - CHANGEABLE, "a resumed run keeps its settings")
    # a file must not decide where else to write
    return with_one_budget(asdict(saved) | {"tensorboard": None}, given)


def check_given(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call from Python as settings: paths, dtypes and devices by their
    names, ``data`` as a list, without those that are None.

    Raises UserError that names the first argument that is unknown or not allowed.
    """
    known = {f.name: f.metadata for f in fields(Settings)}
    known["resume"] = known["init_from"]  # not a setting, but also the name of a file
    plain: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else "train.py --help lists them"
            raise UserError(f"{name}: no such argument; {advice}")
        if value is None:
            continue
        if name == "data":
            value = [value] if isinstance(value, (str, os.PathLike)) else value
            value = [*map(plain_value, value)] if isinstance(value, (list, tuple)) else value
        plain[name] = plain_value(value)
        check_value(name, plain[name], known[name], "settings")
    return plain


def plain_value(value: Any) -> Any:
    """Return the name of a path, dtype or device, and any other value unchanged."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    return value


def new_settings(given: dict[str, Any], source: CharRNN | None) -> dict[str, Any]:
    """Return ``given`` with the defaults that no preset decides, and with the size of the model
    ``source``, if the run starts from one.

    Raises UserError if ``given`` has another size than that model.
    """
    kept = {}
    if source is not None:
        kept = {name: getattr(source, name) for name in ("n_hidden", "n_layers", "cell")}
    others = {name for name in kept if given.get(name, kept[name]) != kept[name]}
    reject_flags(others, "--init-from keeps the model's")
    defaults = {f.name: f.default for f in fields(Settings) if f.default is not MISSING}
    return defaults | given | kept


def reject_flags(names: Iterable[str], why: str) -> None:
    """Raises UserError for the first of these settings, if there are any."""
    for name in sorted(names):
        flag = "--" + name.replace("_", "-")
        raise UserError(f"{flag}: {why}; leave {flag} out")


def resolve_settings(
    given: dict[str, Any], on_accelerator: bool, n_chars: int, step_time: StepTime
) -> Settings:
    """Return the settings of a run: ``given`` is what ``new_settings`` or ``resume_settings``
    returned, and the preset fills in the rest. A resumed run has no rest.

    ``n_chars`` is the length of the whole text. ``step_time(n_hidden, n_layers, cell, batch_size,
    seq_length)`` returns how many seconds a training step takes on this machine. Raises UserError
    for a value that is not allowed.
    """
    preset = given["preset"]
    if preset == "auto":
        preset = "accelerator" if on_accelerator else "laptop"
    # more held-out text would not make the loss more exact, but each evaluation longer
    chosen = PRESETS[preset] | {"val_frac": min(HELD_OUT, MOST_HELD_OUT / n_chars)}
    chosen = with_one_budget(chosen, given)
    if preset == "laptop" and NOTEBOOK.keys() - chosen.keys():
        chosen = laptop_defaults(chosen, n_chars, step_time)
    chosen["preset"] = preset
    check_fields(Settings, chosen, "settings")
    if not (chosen["epochs"] or chosen["minutes"]):
        raise UserError("settings: neither epochs nor minutes; give one of them")
    for f in fields(Settings):  # from Python, 0 may be given for 0.0
        if isinstance(f.metadata["values"], Number) and chosen[f.name] is not None:
            chosen[f.name] = f.metadata["values"].kind(chosen[f.name])
    return Settings(**chosen)


def laptop_defaults(given: dict[str, Any], n_chars: int, step_time: StepTime) -> dict[str, Any]:
    """Return ``given`` with what the laptop preset chooses for the text and the time. The numbers
    are from the runs in benchmarks/.

    A short text needs fewer and shorter rows. The size follows from the speed of one layer of 512,
    dropout and learning rate from that of the model itself.
    """
    chosen = dict(given)
    n_train = n_chars - round(n_chars * chosen["val_frac"])
    seq_length = chosen.setdefault("seq_length", max(1, min(SEQ_LENGTH, n_train // 8)))
    most_rows = n_train // (4 * (seq_length + 1))
    batch_size = chosen.setdefault("batch_size", max(1, min(BATCH_SIZE, most_rows)))
    per_epoch = n_train / (batch_size * seq_length)
    steps = (chosen["epochs"] or math.inf) * per_epoch
    seconds = 60 * (chosen["minutes"] or math.inf)
    if not chosen.keys() >= {"n_hidden", "n_layers"}:
        n_hidden, n_layers = 512, 1 if (chosen["epochs"] or 0) < 6 else 2
        if chosen["minutes"]:
            seconds_per_step = step_time(512, 1, "lstm", BATCH_SIZE, SEQ_LENGTH)
            chars_affordable = BATCH_SIZE * SEQ_LENGTH * seconds / seconds_per_step
            n_hidden, n_layers = laptop_size(n_chars, chars_affordable)
        chosen = {"n_hidden": n_hidden, "n_layers": n_layers} | chosen
    fits = batch_size * (seq_length + 1) <= n_train  # else the run is refused: nothing to time
    if chosen["minutes"] and fits:
        size = chosen["n_hidden"], chosen["n_layers"], chosen["cell"], batch_size, seq_length
        steps = min(steps, seconds / step_time(*size))
    # the fewer steps, the larger they must be
    lr = round(min(MOST_LR, max(LEAST_LR, 0.17 * steps**-0.25)), 4)
    # hidden matrices forget a short text in 1.5 epochs (Wang and Aitchison 2024, arXiv:2405.13698:
    # a constant number of epochs, whatever the length)
    weight_decay = 1 / (1.5 * per_epoch * PRESETS["laptop"]["muon_scale"] * lr)
    # a cell without gates diverges at the LSTM's rate
    chosen.setdefault("lr", round(lr / 10, 4) if chosen["cell"] == "rnn" else lr)
    chosen.setdefault("weight_decay", round(min(0.06, max(0.02, weight_decay)), 2))
    chosen.setdefault("drop_prob", round(min(MOST_DROPOUT, steps / per_epoch / 40), 2))
    return chosen


def laptop_size(n_chars: int, chars_affordable: float) -> tuple[int, int]:
    """Return (units, layers) of the largest model for which there is time for enough steps:
    ``FEWEST_STEPS`` for 512 units, and more for wider ones.

    ``chars_affordable`` is how many characters one layer of 512 could read in the time. A smaller
    model would read more, but soon stop improving; only a short text, which is read often in any
    case, needs fewer units.
    """
    if n_chars < 1_000_000 and chars_affordable >= 4 * n_chars:
        return (256 if n_chars < 200_000 else 384), 2
    for n_hidden, n_layers in ((1024, 2), (768, 2), (512, 2)):
        chars = chars_affordable / relative_step_time(n_hidden, n_layers)
        if chars / (BATCH_SIZE * SEQ_LENGTH) >= FEWEST_STEPS * (n_hidden / 512) ** 2:
            return n_hidden, n_layers
    return 512, 1


def relative_step_time(n_hidden: int, n_layers: int) -> float:
    """Return how many times as long as one layer of 512 a model of this size takes for a step."""
    return (n_hidden / 512) ** 2 * (1.8 * n_layers - 0.8)
