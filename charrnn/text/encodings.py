"""Find the encoding of a text: by its name, by a byte-order mark, or guessed for a message."""

import codecs
import unicodedata
from contextlib import suppress
from itertools import islice, pairwise

from charrnn.errors import UserError

MARKS = {  # UTF-32 first, since its marks begin with those of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
COMMON = (  # of two that fit equally well, the earlier one is suggested first
    *("cp1252", "latin-1", "cp1255", "cp1251", "koi8-r", "cp1250", "cp1253", "cp1254", "cp1256"),
    *("cp866", "shift_jis", "euc-kr", "gb18030", "big5", "euc-jp"),
)


def check_encoding(name: str) -> str:
    """Return Python's own name of an encoding. Raises UserError where Python knows no such text
    encoding, or none that can be decoded in blocks."""
    try:
        raw = "a\u00e9\u0436b\n".encode(name, "ignore")
        decoder = codecs.getincrementaldecoder(name)()
        if decoder.decode(raw[:2]) + decoder.decode(raw[2:], final=True) != raw.decode(name):
            raise LookupError  # decoding in blocks gives another text, as with punycode
        return codecs.lookup(name).name
    except (LookupError, ValueError):  # ValueError: "undefined", or a zero byte in the name
        raise UserError(
            f"--encoding {name}: Python knows no such text encoding; utf-8, utf-16, latin-1, "
            "cp1252, cp1251, shift_jis and gb18030 are some that it knows"
        ) from None


def recognise(head: bytes, encoding: str) -> str:
    """Return the encoding of a text that begins with ``head``: the one asked for, except that a
    byte-order mark decides where that is UTF-8."""
    if encoding != "utf-8":
        return encoding
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8-sig")


def suggest(raw: bytes, bad: int) -> list[str]:
    """Return the two common encodings in which ``raw`` looks most like text. ``bad`` is the place
    of the first byte that could not be decoded."""
    raw = raw[raw.rfind(b"\n", 0, bad) + 1 :]
    fits = {}
    for name in ("utf-16-le", "utf-16-be") if b"\0" in raw else COMMON:
        with suppress(UnicodeError):  # incrementally, since the last character may be cut in two
            fits[name] = _plausibility(codecs.getincrementaldecoder(name)().decode(raw))
    return sorted(fits, key=fits.__getitem__, reverse=True)[:2]


def _plausibility(text: str) -> float:
    """Return how many of the neighbouring characters that are not both ASCII could stand in one
    word: a share of 1."""
    pairs = ((a, b) for a, b in pairwise(f" {text[:20_000]} ") if not (a + b).isascii())
    judged = [_go_together(a, b) for a, b in islice(pairs, 2000)]
    return sum(judged) / len(judged) if judged else 1


def _go_together(a: str, b: str) -> bool:
    """Return whether two characters may be neighbours: letters of one script, no capital after a
    letter, and of two Latin letters at least one is ASCII."""
    strange = [char for char in (a, b) if not char.isascii()]
    if any(unicodedata.category(char)[0] not in "LMP" for char in strange):
        return False  # a symbol or a control character
    if not (a.isalpha() and b.isalpha()):
        return True
    scripts = {unicodedata.name(char, "?").split()[0] for char in (a, b)}
    if scripts <= {"CJK", "HIRAGANA", "KATAKANA"}:
        return True
    latin_pair = scripts == {"LATIN"} and len(strange) == 2
    return len(scripts) == 1 and scripts != {"HALFWIDTH"} and not latin_pair and not b.isupper()
