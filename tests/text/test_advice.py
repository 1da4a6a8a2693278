"""What is said about a text before it is trained on."""

import json
import re
from pathlib import Path

import pytest
import torch
from runs import ROOT

from charrnn.text import advice as module
from charrnn.text.advice import advice, count_invisible
from charrnn.text.corpus import load_corpus

CASES = Path(__file__).parents[3] / "shared" / "cases"


def test_tables_are_read_as_they_are_and_that_is_said(tmp_path: Path) -> None:
    names = ("a.csv", "b.TSV", "c.jsonl", "d.txt")
    for name in names:
        (tmp_path / name).write_text('1,"a, b"\n')
    for name in names[:3]:
        found = load_corpus([str(tmp_path / name)])
        assert found.vocabulary.decode(found.ids) == '1,"a, b"\n'
        (sentence,) = advice(found)
        assert sentence.startswith(f"{name}: read as it is") and "extract a column" in sentence
    assert advice(load_corpus([str(tmp_path / "d.txt")])) == []
    (sentence,) = advice(load_corpus([str(tmp_path / name) for name in names]))
    assert sentence.startswith("a.csv and 2 more: read as it is")


def test_the_docs_extract_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    docs = (ROOT / "docs" / "tips.md").read_text(encoding="utf-8").partition("## A column")[2]
    for_csv, for_jsonl = re.findall(r"```python\n(.*?)```", docs, flags=re.DOTALL)[:2]
    Path("titles.csv").write_text('id,title\n0,"Lamp, ""old"""\n1,"two\nlines"\n2,\u00e9t\u00e9\n')
    exec(for_csv, {})
    assert Path("titles.txt").read_text() == 'Lamp, "old"\ntwo lines\n\u00e9t\u00e9'
    lines = [{"id": 1, "text": "one\ntwo"}, {"text": "\u00e9"}]
    Path("tweets.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    exec(for_jsonl, {})
    assert Path("tweets.txt").read_text() == "one two\n\u00e9"


def test_invisible_characters_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\u00a0b\u00a0\u202fc\u200e\ufeffd e\tf\n\u00a0" * 100, encoding="utf-8")
    monkeypatch.setattr(module, "BLOCK", 7)
    found = load_corpus([str(path)])
    assert count_invisible(found) == {"\u00a0": 300, "\u200e": 100, "\u202f": 100, "\ufeff": 100}
    (sentence,) = advice(found)
    assert "600 invisible characters" in sentence
    assert "300 U+00A0 NO-BREAK SPACE, 100 U+200E LEFT-TO-RIGHT MARK" in sentence
    # keyboards have these: an ideographic space, a joiner of Persian letters, one of emoji
    path.write_text("a b\t\u3000\u200c\u200d\n\u00e9" * 9, encoding="utf-8")
    assert advice(load_corpus([str(path)])) == []


def test_only_a_text_with_invisible_characters_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("plain")
    found = load_corpus([str(tmp_path / "a.txt")])
    monkeypatch.setattr(torch.Tensor, "split", lambda *_: pytest.fail("read"))
    assert advice(found) == []


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
def test_the_cases() -> None:
    said = {
        name: advice(load_corpus([str(CASES / name)])) for name in ("titles.csv", "recipes.txt")
    }
    assert "read as it is" in said["titles.csv"][0] and said["recipes.txt"] == []
