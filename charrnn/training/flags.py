"""The command line of train.py, made from the table of settings."""

import argparse
from dataclasses import MISSING, Field, fields
from typing import Any

from charrnn.system.cli import Parser
from charrnn.system.values import Choice, Number
from charrnn.training.settings import CHANGEABLE, GROUPS, NOTEBOOK, PRESETS, Settings

DESCRIPTION = """Train a character-level LSTM on a text. Writes CKPT (the best model by held-out
loss) and, beside it, a .resume file to resume from and a .jsonl log."""
FLAGS = {f.name: f for f in fields(Settings) if "group" in f.metadata}


def default_help(flag: Field) -> str:
    """Return a setting's default in words, in every preset if they differ."""
    shown = flag.metadata["shown"]
    if flag.name in NOTEBOOK:
        chosen = {preset: values.get(flag.name, shown) for preset, values in PRESETS.items()}
        return "; ".join(f"{preset} {'off' if v is None else v}" for preset, v in chosen.items())
    return shown or ("" if flag.default in (None, MISSING) else str(flag.default))


def make_parser() -> Parser:
    """Return the parser of every flag. A flag that is not given is absent from its result."""
    p = Parser(DESCRIPTION, prog="train.py", argument_default=argparse.SUPPRESS)
    groups = {name: p.add_argument_group(name) for name in GROUPS}
    for name, flag in FLAGS.items():
        words, values, default = flag.metadata["help"], flag.metadata["values"], default_help(flag)
        more: dict[str, Any] = {"help": f"{words} (default: {default})" if default else words}
        if isinstance(values, Number):
            more |= {"type": values, "metavar": flag.metadata["metavar"]}
        elif isinstance(values, Choice):
            more |= {"type": str.lower, "choices": tuple(values.names)}
        else:
            more |= {"nargs": "+" if name == "data" else None, "metavar": flag.metadata["metavar"]}
        groups[flag.metadata["group"]].add_argument("--" + name.replace("_", "-"), **more)
    groups["files"].add_argument(
        "--resume",
        metavar="FILE",
        help="resume the run of this .resume file, with its settings; of the other flags only "
        f"{', '.join('--' + name for name in CHANGEABLE)} may be given with it",
    )
    return p


def parse_args(argv: list[str] | None = None) -> dict[str, Any]:
    """Return the settings given by flags. Raises UserError for flags that are unknown or do not go
    together, and values that are not allowed."""
    p = make_parser()
    p.add_argument("text", nargs="*", help=argparse.SUPPRESS)  # so that `train.py my.txt` works
    given = vars(p.parse_args(argv))
    if text := given.pop("text", None):
        if "data" in given:
            p.error(f"unrecognized arguments: {' '.join(text)}")
        given["data"] = text
    return given
