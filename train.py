"""Train a character-level LSTM on a text: ``python train.py --help`` explains every flag."""

from dataclasses import replace

from charrnn.checkpoint import load_checkpoint
from charrnn.cli import Parser, number, run
from charrnn.corpus import load_corpus
from charrnn.device import pick_device
from charrnn.errors import UserError
from charrnn.settings import PRESETS, fill_in
from charrnn.training import load_resume, train

ALWAYS = {
    "ckpt": "rnn.net",
    "preset": "auto",
    "device": "auto",
    "dtype": "auto",
    "seed": 1,
    "cell": "lstm",
    "min_count": 1,
}


def by_preset(name: str) -> str:
    """A flag's default in each preset, for its help."""
    defaults = {preset: values.get(name, "off") for preset, values in PRESETS.items()}
    if name == "n_hidden":
        defaults["laptop"] = "512, 768 from 4 minutes on"
    if name == "drop_prob":
        defaults["laptop"] = "0.04 for each time the text is read, 0.5 at most"
    return f"(default: {'; '.join(f'{preset} {value}' for preset, value in defaults.items())})"


def parser() -> Parser:
    """Every flag; one that was not given is None."""
    p = Parser(
        "Train a character-level LSTM on a text. Writes CKPT (the best model by held-out loss) "
        "and, beside it, a .resume file and a .jsonl log."
    )
    above_0 = number(float, 0, above=True)
    count = number(int, 1, 1_000_000)
    p.add_argument(
        "--data",
        metavar="PATH",
        nargs="+",
        help="UTF-8 text to learn: files, a folder, or python-docs, the documentation inside "
        "Python itself (default: data/anna.txt, downloaded once)",
    )
    p.add_argument(
        "--min-count",
        type=count,
        help="characters seen less often are all learned as U+FFFD (default: 1, none)",
    )
    p.add_argument("--ckpt", metavar="FILE", help="where the model goes (default: rnn.net)")
    p.add_argument(
        "--preset",
        choices=("auto", "notebook", "laptop"),
        help="fills in every setting not given; notebook: the classic notebook's; laptop: learns "
        "most in a few CPU minutes; auto: laptop on a CPU, else the notebook's model with a better "
        "recipe, called accelerator below (default: auto)",
    )
    p.add_argument(
        "--epochs", type=count, help=f"passes over the training text {by_preset('epochs')}"
    )
    p.add_argument(
        "--minutes",
        type=above_0,
        help="wall-clock minutes to train; with --epochs, whichever ends first "
        f"{by_preset('minutes')}",
    )
    p.add_argument(
        "--device", help="auto, cpu, cuda, cuda:N or mps (default: auto, the fastest there)"
    )
    p.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        help="precision of the training step's products; weights stay float32 "
        "(default: auto, bfloat16 where the hardware has it)",
    )
    p.add_argument(
        "--cell", choices=("lstm", "gru", "rnn"), help="kind of recurrent layer (default: lstm)"
    )
    p.add_argument("--n-hidden", type=count, help=f"LSTM units per layer {by_preset('n_hidden')}")
    p.add_argument("--n-layers", type=count, help=f"LSTM layers {by_preset('n_layers')}")
    p.add_argument(
        "--drop-prob",
        type=number(float, 0, 1, below=True),
        help=f"share of each layer's output dropped in training {by_preset('drop_prob')}",
    )
    p.add_argument(
        "--batch-size", type=count, help=f"rows of text read side by side {by_preset('batch_size')}"
    )
    p.add_argument(
        "--seq-length",
        type=count,
        help=f"characters that gradients flow back through {by_preset('seq_length')}",
    )
    p.add_argument("--lr", type=above_0, help=f"peak learning rate {by_preset('lr')}")
    p.add_argument("--clip", type=above_0, help=f"largest gradient norm {by_preset('clip')}")
    p.add_argument(
        "--val-frac",
        type=number(float, 0, 1, above=True, below=True),
        help="share of the text, cut from its end, held out to judge the model (default: 0.1, "
        "but at most 500,000 characters)",
    )
    p.add_argument(
        "--seed", type=number(int, 0, 2**31 - 1), help="of every random number (default: 1)"
    )
    p.add_argument(
        "--prime",
        metavar="TEXT",
        help="start of the sample shown after each evaluation (default: a newline, or the model's "
        "most frequent character)",
    )
    p.add_argument(
        "--init-from",
        metavar="FILE",
        help="start from the weights of this model; its size and cell are kept, characters new "
        "to it get new rows, every other flag counts as usual",
    )
    p.add_argument(
        "--resume",
        metavar="FILE",
        help="go on with an interrupted run from its .resume file, with its settings; "
        "only --device and --data may be given with it",
    )
    return p


def main() -> int:
    """Parse the command line and train."""
    flags = vars(parser().parse_args())
    resume = flags.pop("resume")
    if resume is not None:
        given = {name: value for name, value in flags.items() if value is not None}
        for name in given.keys() - {"device", "data"}:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag}: a resumed run keeps its settings; leave {flag} out")
        settings, state = load_resume(resume)
        settings = replace(settings, **given)
        return train(settings, load_corpus(settings.data, settings.min_count), state)
    if flags["init_from"] is not None:
        model = load_checkpoint(flags["init_from"])
        for name in ("n_hidden", "n_layers", "cell"):
            if flags[name] not in (None, getattr(model, name)):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag}: --init-from keeps the model's; leave {flag} out")
            flags[name] = getattr(model, name)
    flags |= {name: value for name, value in ALWAYS.items() if flags[name] is None}
    on_accelerator = pick_device(flags["device"]).type != "cpu"
    corpus = load_corpus(flags["data"], flags["min_count"])
    return train(fill_in(flags, on_accelerator, len(corpus.ids)), corpus)


if __name__ == "__main__":
    run(main)
