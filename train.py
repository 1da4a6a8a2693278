"""Train a character-level LSTM on a text: ``python train.py --help`` explains every flag."""

import argparse
from dataclasses import replace

from charrnn.checkpoint import load_checkpoint
from charrnn.cli import Kind, Parser, number, run
from charrnn.corpus import load_corpus
from charrnn.device import DTYPES, pick_device
from charrnn.errors import UserError
from charrnn.settings import PRESETS, Settings, fill_in
from charrnn.training import load_resume, train

IN_WORDS = {  # defaults that a number or a name does not explain
    "data": "data/anna.txt, downloaded once",
    "min_count": "1, none",
    "device": "auto, the fastest there",
    "dtype": "auto, bfloat16 where the hardware has it",
    # of the laptop preset
    "n_hidden": "512, in two layers 256 to 512 by the length of the text",
    "n_layers": "1, or 2 where there is time to read the text ten times",
    "drop_prob": "0.05 for each time the text is read, 0.5 at most",
    "lr": "1 / sqrt(steps), between 0.004 and 0.024",
    "val_frac": "0.1, but at most 200,000 characters",
    "prime": "a newline, or the model's most frequent character",
}


def default_of(name: str) -> str:
    """A setting's default, in every preset where they differ, for the help of its flag."""
    if name in PRESETS["laptop"]:
        values = {preset: chosen[name] for preset, chosen in PRESETS.items()}
        default = "; ".join(f"{p} {v or IN_WORDS.get(name, 'off')}" for p, v in values.items())
    else:
        default = IN_WORDS.get(name) or getattr(Settings, name, None)
    return "" if default is None else f" (default: {default})"


def parser() -> Parser:
    """Every flag; those not given are absent from what it parses to, and filled in later."""
    p = Parser(
        "Train a character-level LSTM on a text. Writes CKPT (the best model by held-out loss) "
        "and, beside it, a .resume file and a .jsonl log.",
        argument_default=argparse.SUPPRESS,
    )

    def flag(name: str, what: str, kind: Kind = "TEXT") -> None:
        p.flag(name, what + default_of(name.removeprefix("--").replace("-", "_")), kind)

    count, above_0 = number(int, 1, 1_000_000), number(float, 0, above=True)
    share, part = number(float, 0, 1, below=True), number(float, 0, 1, above=True, below=True)
    data = "UTF-8 text: files, a folder, or python-docs, Python's manual" + default_of("data")
    p.add_argument("--data", metavar="PATH", nargs="+", help=data)
    flag("--min-count", "characters seen less often are all learned as U+FFFD", count)
    flag("--ckpt", "where the model goes", "FILE")
    flag(
        "--preset",
        "fills in every setting not given; notebook: the classic notebook's; laptop: learns most "
        "in a few CPU minutes; auto: laptop on a CPU, else the notebook's model with a better "
        "recipe, called accelerator below",
        ("auto", "notebook", "laptop"),
    )
    flag("--epochs", "passes over the training text", count)
    flag("--minutes", "wall-clock minutes; with --epochs, whichever ends first", above_0)
    flag("--device", "auto, cpu, cuda, cuda:N or mps", "NAME")
    flag("--dtype", "precision of the step's products; weights stay float32", DTYPES)
    flag("--cell", "kind of recurrent layer", ("lstm", "gru", "rnn"))
    flag("--n-hidden", "LSTM units per layer", count)
    flag("--n-layers", "LSTM layers", count)
    flag("--drop-prob", "share of each layer's output dropped in training", share)
    flag("--batch-size", "rows of text read side by side", count)
    flag("--seq-length", "characters that gradients flow back through", count)
    flag("--lr", "peak learning rate", above_0)
    flag("--clip", "largest gradient norm", above_0)
    flag("--val-frac", "share of the text, cut from its end, to judge the model by", part)
    flag("--seed", "of every random number", number(int, 0, 2**31 - 1))
    flag("--prime", "start of the sample shown after each evaluation")
    flag("--init-from", "start from this model, at its size; new characters get new rows", "FILE")
    flag(
        "--resume",
        "go on with the run of this .resume file; only --device and --data may be given with it",
        "FILE",
    )
    return p


def refuse(names: set[str], why: str) -> None:
    """Raises UserError for the first of these flags."""
    for name in sorted(names):
        flag = "--" + name.replace("_", "-")
        raise UserError(f"{flag}: {why}; leave {flag} out")


def main() -> int:
    """Parse the command line and train."""
    given = vars(parser().parse_args())
    if "resume" in given:
        path = given.pop("resume")
        refuse(given.keys() - {"device", "data"}, "a resumed run keeps its settings")
        settings, state = load_resume(path)
        settings = replace(settings, **given)
        return train(settings, load_corpus(settings.data, settings.min_count), state)
    if "init_from" in given:
        model = load_checkpoint(given["init_from"])
        kept = {name: getattr(model, name) for name in ("n_hidden", "n_layers", "cell")}
        others = {name for name in kept if given.get(name, kept[name]) != kept[name]}
        refuse(others, "--init-from keeps the model's")
        given |= kept
    device = pick_device(given.get("device", Settings.device))
    corpus = load_corpus(given.get("data"), given.get("min_count", Settings.min_count))
    return train(fill_in(given, device.type != "cpu", len(corpus.ids)), corpus)


if __name__ == "__main__":
    run(main)
