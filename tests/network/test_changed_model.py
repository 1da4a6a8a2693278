"""A model that somebody changed: everything follows, or says why not."""

import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import ROOT
from torch import Tensor

import sample as sample_program
import train
from charrnn import CharRNN, sample, share
from charrnn.errors import UserError
from charrnn.network.checkpoint import check_saveable, load_dict, save_checkpoint
from charrnn.network.model import Hidden
from charrnn.writing.decoder import has_fast_step

TOKENS = tuple("\n abcdefgh")
USE = """
import sys, torch, train, sample
from charrnn import eval, neurons, share, load_checkpoint
flags = "--n-hidden 16 --n-layers 2 --batch-size 4 --seq-length 16 --device cpu".split()
assert train.main(["--data", "my.txt", "--epochs", "1", *sys.argv[1:], *flags]) == 0
assert train.main(["--resume", "rnn.resume", "--epochs", "2", "--device", "cpu"]) == 0
again = ["--init-from", "rnn.net", "--ckpt", "b.net", "--data", "new.txt", "--epochs", "1"]
assert train.main([*again, *flags[4:]]) == 0
assert sample.main("--size 40 --temperature 0 --out out.txt --prime ab".split()) == 0
model = load_checkpoint("rnn.net")
ids, text = [model.char2int[char] for char in "\\nab"], "ab"
for _ in range(40):
    with torch.no_grad():
        logits, _ = model(torch.tensor([ids]), model.init_hidden(1))
    ids.append(int(logits[-1].argmax()))
    text += model.unique_tokens[ids[-1]]
assert open("out.txt").read() == text + "\\n"
assert eval.main("--data my.txt --surprise s.html".split()) == 0
assert neurons.main("--data my.txt".split()) == 0
assert share.main([]) == 2
"""


def docs(name: str) -> str:
    """A file of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_block(language: str) -> str:
    """The first code block of a language of the section on changing the model."""
    section = docs("python.md").split("\n## Change the model\n")[1]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]


def copy_program(folder: Path) -> Path:
    """Copy what is run to ``folder``; the copy of model.py."""
    shutil.copytree(ROOT / "charrnn", folder / "charrnn")
    for name in ("train.py", "sample.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder / "charrnn" / "network" / "model.py"


def patched(source: str, diff: str) -> str:
    """``source`` with the lines of a diff: "-" goes, "+" comes in its place or after " "."""
    place = 0
    for sign, line in ((line[:1], line[1:] + "\n") for line in diff.splitlines()):
        if sign == "+":
            source = source[:place] + line + source[place:]
            place += len(line)
        else:
            assert source.count(line) == 1, line
            place = source.index(line) + len(line) * (sign == " ")
            source = source.replace(line, line if sign == " " else "")
    return source


@pytest.mark.parametrize("example", ["diff", "python"])
def test_everything_follows_the_examples_of_the_docs(tmp_path: Path, example: str) -> None:
    model = copy_program(tmp_path)
    source = model.read_text(encoding="utf-8")
    if example == "diff":
        source, flags = patched(source, code_block("diff")), []
    else:
        source, flags = f"{source}\n\n{code_block('python')}", ["--cell", "mingru"]
    model.write_text(source, encoding="utf-8")
    (tmp_path / "my.txt").write_text("abcd efgh\nhgfe dcba\n" * 300)
    (tmp_path / "new.txt").write_text("abcd eXgh\nhgfe dcba\n" * 300)  # a character more
    done = subprocess.run(
        [sys.executable, "-c", USE, *flags], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "computes something else" in done.stderr.splitlines()[-1]  # the shared page


class Scaled(CharRNN):
    """Computes with a number that no file of it has."""

    scale = 1.0

    def forward(self, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        logits, hidden = super().forward(x, hidden)
        return logits * self.scale, hidden


class Larger(CharRNN):
    """Has a weight that CharRNN, as it is built of what a file says, has not."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)
        self.norm = torch.nn.LayerNorm(self.n_hidden)


def test_what_could_not_be_loaded_is_said_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    check_saveable(CharRNN(TOKENS, 8, 2))
    scaled = Scaled(TOKENS, 8, 2)
    check_saveable(scaled)
    scaled.scale = 3.0
    with pytest.raises(UserError, match="something else"):
        check_saveable(scaled)
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("abcd efgh\n" * 300)
    monkeypatch.setattr(train, "CharRNN", Larger)
    flags = "--epochs 1 --n-hidden 8 --device cpu"
    assert train.main(["--data", "my.txt", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'norm.weight' has shape (8,), not none" in error
    assert [path.name for path in Path().iterdir()] == ["my.txt"]


def test_the_fast_step_is_used_only_where_it_is_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    for cell in ("lstm", "gru", "rnn"):
        model = Scaled(TOKENS, 8, 2, 0.5, cell)
        assert has_fast_step(model)
        model.scale = -1.0  # the likeliest character becomes the least likely one
        assert not has_fast_step(model)
        ids = [model.char2int[char] for char in "\nab"]
        for _ in range(20):
            logits, _ = model.eval()(torch.tensor([ids]), model.init_hidden(1))
            ids.append(int(logits[-1].argmax()))
        text = "".join(TOKENS[i] for i in ids[1:])
        assert sample(model, 20, "ab", temperature=0, dtype="float32") == text
    monkeypatch.chdir(tmp_path)
    save_checkpoint("rnn.net", CharRNN(TOKENS, 8, 2))
    monkeypatch.setattr(CharRNN, "forward", lambda *a, f=CharRNN.forward: (2 * f(*a)[0], f(*a)[1]))
    assert share.main([]) == 2
    assert "computes something else" in capsys.readouterr().err
    assert not Path("rnn.html").exists()


RUN = """
import importlib, shlex, sys
for command in sys.argv[1:]:
    python, *words = shlex.split(command)
    name = words.pop(0).removesuffix(".py")
    name = words.pop(0) if name == "-m" else name
    assert importlib.import_module(name).main(words) == 0, command
"""


@pytest.mark.slow
def test_the_exercises_for_a_class_as_typed(tmp_path: Path) -> None:
    section = docs("class.md")
    code = [" ".join(words.split()) for words in re.findall(r"`(.*?)`", section, re.DOTALL)]
    commands = [words for words in code if re.match(r"python \S+ \S", words)]
    commands = [words for words in commands if not words.endswith("charrnn.curves")]
    assert len(commands) == 10
    (cell,) = [words for words in code if words.startswith("CELLS")]
    with open(copy_program(tmp_path), "a", encoding="utf-8") as file:
        file.write(f"{cell}\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "anna.txt").write_text('She said "abcd efgh" and he "no".\n' * 900)
    (tmp_path / "your.txt").write_text("Another text.\n" * 50)
    # small models for a moment: what is tried is that they run
    commands = [re.sub(r"--minutes \d+", "", words) for words in commands]
    short = "--minutes 0.01 --n-hidden 16 --n-layers 1"
    commands = [f"{c} {short}" if "train.py" in c else c for c in commands]
    commands = [f"{c} --device cpu" if "curves" not in c else c for c in commands]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *commands], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in (
        "none.net",
        "some.net",
        "curves.html",
        "surprise.html",
        "neurons.html",
        "drawn.txt",
    ):
        assert (tmp_path / name).is_file()
    assert load_dict(tmp_path / "relu.net")["cell"] == "relu"


def test_the_recipe_for_a_chat_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = re.search(r"`(python sample.py --interactive .*?)`", docs("tips.md"))[1]
    text = "Me: who\nAnna: a cat\nMe: why\nAnna: no dog\n"
    monkeypatch.chdir(tmp_path)
    save_checkpoint("rnn.net", CharRNN(tuple(sorted(set(text))), 8, 1))
    monkeypatch.setattr(sys, "stdin", io.StringIO("who\nwhy\n"))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert sample_program.main([*shlex.split(recipe)[2:], "--device", "cpu", "--size", "30"]) == 0
    shown = sys.stdout.getvalue()
    assert shown.startswith("Me: who\nAnna:") and shown.count("Me: why\nAnna:") == 1
