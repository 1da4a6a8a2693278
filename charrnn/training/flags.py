"""The command line of train.py: one table for --help, the README and what is parsed."""

import argparse
from dataclasses import fields
from typing import Any, NamedTuple

from charrnn.system.cli import Parser
from charrnn.system.values import Number
from charrnn.training.settings import (
    ACCELERATOR,
    CHANGEABLE,
    LAPTOP,
    MOST_DROPOUT,
    NOTEBOOK,
    Settings,
)

DESCRIPTION = """Train a character-level LSTM on a text. Writes CKPT (the best model by held-out
loss) and, beside it, a .resume file to go on from and a .jsonl log."""


class Flag(NamedTuple):
    """A setting on the command line; what it may be stands in Settings."""

    group: str
    metavar: str
    help: str
    default: str = ""  # in words, where a value does not say it or the laptop preset works it out


FLAGS = {
    "data": Flag(
        "text",
        "PATH",
        "files, a folder, - for stdin, or python-docs, the manual that every Python ships; a "
        "table is read as it is",
        "data/anna.txt, downloaded once",
    ),
    "encoding": Flag("text", "NAME", "of the text; UTF-16 and UTF-32 tell by themselves"),
    "min_count": Flag(
        "text", "N", "characters seen less often are all learned as U+FFFD", "1, none"
    ),
    "val_frac": Flag(
        "text",
        "P",
        "share of the text to hold out, to judge the model by",
        "0.1, at most 200,000 characters",
    ),
    "val_split": Flag(
        "text",
        "NAME",
        "end: hold out the end of the text; lines, paragraphs (between blank lines, or lines such "
        "as =====) or files: some of them from all over it, chosen by --seed",
    ),
    "preset": Flag(
        "model",
        "NAME",
        "fills in every setting not given; notebook: the classic notebook's; laptop: learns most "
        "in a few CPU minutes; accelerator: the notebook's model with a better recipe; auto: "
        "laptop on a CPU, else accelerator",
    ),
    "cell": Flag("model", "NAME", "kind of recurrent layer"),
    "n_hidden": Flag(
        "model",
        "N",
        "units per layer",
        "512, up to 1024 where there is time, 256 or 384 for a short text that is read often",
    ),
    "n_layers": Flag(
        "model",
        "N",
        "recurrent layers",
        "1, or 2 where there is time for 2,400 steps, or to read a short text four times",
    ),
    "drop_prob": Flag(
        "model",
        "P",
        "share of each layer's output dropped in training",
        f"a fortieth for each time the text is read, {MOST_DROPOUT} at most",
    ),
    "init_from": Flag(
        "model", "FILE", "start from this model, at its size; new characters get new rows"
    ),
    "epochs": Flag("training", "N", "passes over the training text"),
    "minutes": Flag("training", "M", "wall-clock minutes; with --epochs, whichever ends first"),
    "patience": Flag("training", "N", "end after N evaluations without a better one"),
    "batch_size": Flag(
        "training",
        "N",
        "rows of text read side by side; fewer means more updates",
        "32, fewer for a short text",
    ),
    "seq_length": Flag(
        "training",
        "N",
        "characters that gradients flow back through",
        "64, fewer for a short text",
    ),
    "lr": Flag(
        "training",
        "X",
        "peak learning rate of AdamW; Muon's, for the hidden matrices, is a multiple of it",
        "0.17 / steps^0.25, between 0.004 and 0.034",
    ),
    "clip": Flag("training", "X", "largest gradient norm"),
    "seed": Flag(
        "training",
        "N",
        "of every random number; same seed, text and machine: the same bytes, on a CPU by --epochs",
    ),
    "device": Flag("training", "NAME", "auto, cpu, cuda, cuda:N or mps", "auto, the fastest there"),
    "dtype": Flag(
        "training",
        "NAME",
        "precision of the step's products; weights stay float32",
        "auto: bfloat16 on a CPU that has it in hardware, float16 on CUDA, else float32",
    ),
    "ckpt": Flag("files", "FILE", "where the model goes"),
    "keep": Flag("files", "NAME", "all: keep each evaluation's model, too, as CKPT.step001234.net"),
    "tensorboard": Flag("files", "DIR", "write the log for TensorBoard, too; needs that package"),
    "prime": Flag(
        "files",
        "TEXT",
        "start of the sample shown after each evaluation",
        "a newline, or the model's most frequent character",
    ),
}


def default_help(name: str, text: str) -> str:
    """A setting's default in words, in every preset where they differ."""
    if name in NOTEBOOK:
        presets = {"notebook": NOTEBOOK, "laptop": LAPTOP, "accelerator": ACCELERATOR}
        shown = {preset: chosen.get(name, text) for preset, chosen in presets.items()}
        return "; ".join(f"{p} {'off' if v is None else v}" for p, v in shown.items())
    default = next(f.default for f in fields(Settings) if f.name == name)
    return text or ("" if default is None else str(default))


def make_parser() -> Parser:
    """Every flag; those not given are absent from what it parses to."""
    p = Parser(DESCRIPTION, prog="train.py", argument_default=argparse.SUPPRESS)
    values = {f.name: f.metadata["values"] for f in fields(Settings)}
    groups: dict[str, Any] = {}
    for name, flag in FLAGS.items():
        if flag.group not in groups:
            groups[flag.group] = p.add_argument_group(flag.group)
        default = default_help(name, flag.default)
        more: dict[str, Any] = {"metavar": flag.metavar}
        more["help"] = f"{flag.help} (default: {default})" if default else flag.help
        if isinstance(values[name], Number):
            more["type"] = values[name]
        elif isinstance(values[name], (tuple, dict)):
            more = {"choices": tuple(values[name]), "type": str.lower, "help": more["help"]}
        if name == "data":
            more["nargs"] = "+"
        groups[flag.group].add_argument("--" + name.replace("_", "-"), **more)
    may = ", ".join("--" + name for name in CHANGEABLE)
    groups["files"].add_argument(
        "--resume",
        metavar="FILE",
        help=f"go on with the run of this .resume file, with its settings; of the other flags only "
        f"{may} may be given with it",
    )
    return p


def parse_args(argv: list[str] | None = None) -> dict[str, Any]:
    """The settings given by flags. Raises UserError for what cannot be or does not go together."""
    p = make_parser()
    p.add_argument("text", nargs="*", help=argparse.SUPPRESS)  # train.py my.txt is plain enough
    given = vars(p.parse_args(argv))
    if text := given.pop("text", None):
        if "data" in given:
            p.error(f"unrecognized arguments: {' '.join(text)}")
        given["data"] = text
    return given
