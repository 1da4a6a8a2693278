"""What all pages share: one self-contained file that loads nothing, one style (light and dark),
escaping and colours."""

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from importlib import resources
from string import Template
from typing import Any

from charrnn.system.console import escape_control_chars, say
from charrnn.system.files import open_output

SHADES = 9  # from -9, cold, to 9, hot; text stays readable on each, light or dark


def page_file(name: str) -> str:
    """Return the text of a file in ``pages/static/``: a template, a style or a script."""
    return (resources.files("charrnn.pages") / "static" / name).read_text(encoding="utf-8")


def fill(template: str, **parts: object) -> str:
    """Return a template in ``pages/static/`` with ``parts``, which are HTML, for its ``$names``."""
    return Template(page_file(template)).substitute(parts)


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
    return fill(
        "page.html",
        allowed=allowed,
        title=escape(title),
        house_style=page_file("style.css"),
        style=style,
        body_class=' class="wide"' if wide else "",
        how_to_read=escape(how_to_read),
        facts=" ".join(f"<span><bdi>{escape(fact)}</bdi></span>" for fact in caption),
        body=body,
        script=f"<script>{script}</script>" if script else "",
    )


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


def shaded(text: str, shade: int, kind: str = "", target: str = "") -> str:
    """Return an element with ``text`` on a background from cold (-SHADES) to hot (SHADES). It has
    the class ``kind`` as well, and is the ``target`` of links, if these are not empty."""
    names = f"{shade_class(shade)} {kind}".strip()
    class_of = f' class="{names}"' if names else ""
    id_of = f" id={target}" if target else ""
    return f"<i{class_of}{id_of}>{escape(text)}</i>"
