"""What all pages share: one self-contained file that loads nothing, one style (light and dark),
escaping and colours."""

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from importlib import resources
from typing import Any

from charrnn.system.console import escape_control_chars, say
from charrnn.system.files import open_output

SHADES = 9  # from -9, cold, to 9, hot; text stays readable on each, light or dark


def page_file(name: str) -> str:
    """Return the text of a file in ``pages/static/``: a style or a script."""
    return (resources.files("charrnn.pages") / "static" / name).read_text(encoding="utf-8")


def escape(text: str) -> str:
    """Return ``text`` for an element or a quoted attribute; control characters are escaped."""
    return html.escape(escape_control_chars(text))


def embed(value: Any) -> str:
    """Return JSON for a ``<script>`` element that is not run: ASCII without <, > and &, so that no
    text in it can end the element or begin another."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(
    title: str,
    how_to_read: str,
    caption: Iterable[str],
    body: str,
    style: str = "",
    script: str = "",
    policy: str = "",
    wide: bool = False,
) -> str:
    """Return a whole page. ``title`` says what one sees, ``how_to_read`` is one sentence, and
    ``caption`` has the model, the text and the loss as plain text. ``body`` is HTML and ``style``
    CSS. ``script`` is our own JavaScript: it runs after the body, and only its hash is allowed.
    ``policy`` is added to the Content-Security-Policy, which otherwise allows nothing. ``wide``
    leaves room beside the text."""
    allowed = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'"
    if script:
        script = f"\n{script}\n".replace("\r\n", "\n")  # as the HTML parser has it, and so the hash
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed += f"; script-src 'sha256-{digest}'"
    if policy:
        allowed += f"; {policy}"
    facts = " ".join(f"<span><bdi>{escape(fact)}</bdi></span>" for fact in caption)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="charrnn">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{page_file("style.css")}
{style}</style>
</head>
<body{' class="wide"' if wide else ""}>
<header>
<h1>{escape(title)}</h1>
<p class="how">{escape(how_to_read)}</p>
<p class="caption">{facts}</p>
</header>
<main>
{body}
</main>
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def write_page(path: str, html: str, advice: str = "") -> None:
    """Write a page and print its name and size on stderr, followed by ``advice``. Lone surrogates
    are escaped. Raises OSError."""
    raw = html.encode("utf-8", "backslashreplace")
    with open_output(path) as file:
        file.write(raw)
    size = f"{len(raw) / 1e6:.1f} MB" if len(raw) >= 1e6 else f"{len(raw) / 1e3:.0f} KB"
    say(f"{path}: {size}; open it in a browser{advice}")


def shade_class(shade: int) -> str:
    """Return the CSS class of a background from cold (-SHADES) to hot (SHADES); none for 0."""
    shade = max(-SHADES, min(SHADES, shade))
    return "" if shade == 0 else f"{'c' if shade < 0 else 's'}{abs(shade)}"


def shaded(text: str, shade: int) -> str:
    """Return an element with ``text`` on a background from cold (-SHADES) to hot (SHADES)."""
    name = shade_class(shade)
    class_of = f" class={name}" if name else ""
    return f"<i{class_of}>{escape(text)}</i>"
