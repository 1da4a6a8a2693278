"""Checkpoints: the notebook's, ours, damaged ones and hostile ones."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import ROOT
from torch import Tensor, nn

from charrnn import CharRNN, load_checkpoint, sample, save_checkpoint
from charrnn.errors import UserError
from charrnn.network.checkpoint import load_dict, save_dict

TOKENS = ("q", "\n", "a", "é", "B")  # in the arbitrary order of a set


class NotebookRNN(nn.Module):
    """The notebook's model, from its description."""

    def __init__(self, tokens: tuple[str, ...], n_hidden: int = 256, n_layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(len(tokens), n_hidden, n_layers, dropout=0.5, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(n_hidden, len(tokens))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0].reshape(-1, self.fc.in_features))


def one_hot(ids: Tensor) -> Tensor:
    return nn.functional.one_hot(ids, len(TOKENS)).float()


def test_a_notebook_checkpoint_loads_and_samples(tmp_path: Path) -> None:
    theirs = NotebookRNN(TOKENS, 8, 2).eval()
    contents = {"n_hidden": 8, "n_layers": 2, "state_dict": theirs.state_dict(), "tokens": TOKENS}
    torch.save(contents, tmp_path / "rnn.net")
    ours = load_checkpoint(tmp_path / "rnn.net")
    ids = torch.randint(len(TOKENS), (3, 7))
    torch.testing.assert_close(ours(ids, ours.init_hidden(3))[0], theirs(one_hot(ids)))
    assert ours.unique_tokens == TOKENS and not ours.training
    text = sample(ours, 20, prime="qé", top_k=5)
    assert len(text) == 22 and set(text) <= set(TOKENS)


def test_the_notebook_loads_ours(tmp_path: Path) -> None:
    ours = CharRNN(TOKENS, 8, 2).eval()
    save_checkpoint(tmp_path / "rnn.net", ours, note="kept")
    with open(tmp_path / "rnn.net", "rb") as file:
        checkpoint = torch.load(file)
    theirs = NotebookRNN(checkpoint["tokens"], checkpoint["n_hidden"], checkpoint["n_layers"])
    theirs.load_state_dict(checkpoint["state_dict"])
    ids = torch.randint(len(TOKENS), (3, 7))
    expected = ours(ids, ours.init_hidden(3))[0]
    torch.testing.assert_close(theirs.eval()(one_hot(ids)), expected)
    assert checkpoint["note"] == "kept"


def test_the_docs_load_ours_into_plain_pytorch_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    docs = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    lines = next(part for part in docs.split("```python\n") if "back.net" in part)
    lines = lines.split("```")[0]
    assert "charrnn" not in lines
    monkeypatch.chdir(tmp_path)
    tokens = tuple(sorted(set("And Levin said")))
    torch.manual_seed(1)
    ours = CharRNN(tokens, 8, 2).eval()
    save_checkpoint("rnn.net", ours, note="kept")
    exec(compile(lines, "files.md", "exec"), {})
    ids = torch.tensor([[ours.char2int[char] for char in "And Levin said"]])
    likeliest = tokens[ours(ids, ours.init_hidden(1))[0][-1].argmax()]
    assert capsys.readouterr().out == f"likeliest next character: {likeliest}\n"
    for one, two in zip(ours.parameters(), load_checkpoint("back.net").parameters(), strict=True):
        assert torch.equal(one, two)
    assert load_dict("back.net")["note"] == "kept"


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_round_trip(tmp_path: Path, cell: str) -> None:
    ours = CharRNN(TOKENS, 8, 3, 0.25, cell)
    save_checkpoint(tmp_path / "rnn.net", ours)
    again = load_checkpoint(tmp_path / "rnn.net")
    assert (again.n_hidden, again.n_layers, again.drop_prob, again.cell) == (8, 3, 0.25, cell)
    for (name, one), two in zip(ours.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_a_save_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rnn.net"
    save_checkpoint(path, CharRNN(TOKENS, 8, 1))
    before = path.read_bytes()

    for error in (OSError(28, "No space left on device"), RuntimeError("unexpected pos")):

        def half(contents: object, file: Any, error: Exception = error) -> None:
            file.write(b"half")
            raise error

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(OSError):
            save_checkpoint(path, CharRNN(TOKENS, 9, 1))
        assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class Attack:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.path),)


def weights(**changes: Tensor) -> dict[str, Tensor]:
    return {**CharRNN(TOKENS, 8, 2).state_dict(), **changes}


nan = torch.full((5, 8), float("nan"))
BAD: list[tuple[dict[str, Any], str]] = [
    ({"n_hidden": -8}, "n_hidden"),
    ({"n_hidden": True}, "n_hidden"),
    ({"n_hidden": "8"}, "n_hidden"),
    ({"n_hidden": 10**12}, "no weights of 1000000000000 units"),
    ({"n_layers": 10**12}, "no weights of 1000000000000 layers"),
    ({"n_layers": 0}, "n_layers"),
    ({"tokens": ("a", "a", "b", "c", "d")}, "tokens"),
    ({"tokens": ("ab", "c", "d", "e", "f")}, "tokens"),
    ({"tokens": ()}, "tokens"),
    ({"tokens": (1, 2, 3, 4, 5)}, "tokens"),
    ({"tokens": "qaéB\n"}, "tokens"),
    ({"tokens": ("a", "b")}, "shape"),
    ({"state_dict": [1, 2]}, "state_dict"),
    ({"state_dict": {}}, "no weights of 2 layers"),
    ({"state_dict": weights(**{"fc.weight": torch.zeros(5, 9)})}, "fc.weight' has shape"),
    ({"state_dict": weights(**{"fc.weight": nan})}, "finite"),
    ({"state_dict": weights(**{"fc.bias": torch.zeros(5, dtype=torch.int64)})}, "fc.bias"),
    ({"state_dict": weights(**{"fc.weight": torch.zeros(1).expand(5, 8)})}, "fc.weight"),
    ({"state_dict": weights(**{"fc.weight": torch.zeros(5, 8).to_sparse()})}, "not a checkpoint"),
    ({"drop_prob": 2.0}, "drop_prob"),
    ({"drop_prob": "x"}, "drop_prob"),
    ({"cell": "tape"}, "cell"),
    ({"cell": "gru"}, "shape"),
]


@pytest.mark.parametrize(("change", "reason"), BAD)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    good = {"n_hidden": 8, "n_layers": 2, "state_dict": weights(), "tokens": TOKENS}
    torch.save(good, tmp_path / "a.net")
    load_checkpoint(tmp_path / "a.net")
    torch.save(good | change, tmp_path / "a.net")
    with warnings.catch_warnings(), pytest.raises(UserError, match=reason) as caught:
        warnings.simplefilter("error")
        load_checkpoint(tmp_path / "a.net")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["n_hidden", "n_layers", "state_dict", "tokens"])
def test_missing_keys_are_named(tmp_path: Path, key: str) -> None:
    good = {"n_hidden": 8, "n_layers": 2, "state_dict": weights(), "tokens": TOKENS}
    del good[key]
    torch.save(good, tmp_path / "a.net")
    with pytest.raises(UserError, match=f"it has no '{key}'"):
        load_checkpoint(tmp_path / "a.net")


def test_no_code_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for legacy in (False, True):
        torch.save(
            {"tokens": Attack(marker)},
            tmp_path / "a.net",
            _use_new_zipfile_serialization=not legacy,
        )
        with pytest.raises(UserError):
            load_dict(tmp_path / "a.net")
        assert not marker.exists()
    Attack(marker).__reduce__()[0](marker)
    assert marker.exists()  # had it run, the test would have seen it


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    save_dict(path, {"a": torch.zeros(100)})
    whole = path.read_bytes()
    for raw in (b"", b"text", whole[:-30], whole[: len(whole) // 2], b"\x80\x04."):
        path.write_bytes(raw)
        with pytest.raises(UserError, match="checkpoint"):
            load_dict(path)
    torch.save([1], path)
    with pytest.raises(UserError, match="no dict"):
        load_dict(path)
    with pytest.raises(UserError):
        load_dict(tmp_path)
