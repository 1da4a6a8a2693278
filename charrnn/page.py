"""What the HTML pages share: one file each, light and dark, no script, nothing loaded."""

import html

from charrnn.checkpoint import atomic_file
from charrnn.console import visible
from charrnn.errors import UserError

SHADES = 9  # from -9, cold, to 9, hot; text stays readable on each, light or dark
STYLE = """:root { color-scheme: light dark; background: Canvas; overflow-wrap: anywhere; }
body { margin: 2rem auto 10rem; max-width: 60rem; padding: 0 1rem; font: 1rem/1.5 system-ui; }
.text { font: 0.9rem/1.6 ui-monospace, monospace; white-space: pre-wrap; unicode-bidi: plaintext; }
i { font-style: normal; background: rgb(230 90 20 / calc(var(--shade) * 8%))
  linear-gradient(rgb(50 120 255 / calc(var(--shade) * -8%)) 0 0); } p i { padding: 0.5em; }"""


def escape(text: str) -> str:
    """``text`` for an element or a quoted attribute; control characters are spelled out."""
    return html.escape(visible(text))


def shaded(text: str, shade: int, attributes: str = "") -> str:
    """An element with ``text`` on a background from cold (-SHADES) to hot (SHADES)."""
    return f'<i style="--shade: {shade}"{attributes}>{escape(text)}</i>'


def write_page(path: str, title: str, body: str, style: str = "") -> None:
    """``title`` is any text, ``body`` HTML. Raises UserError when the disk refuses."""
    page = f"""<!DOCTYPE html><html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>
<style>{STYLE}\n{style}</style><h1>{escape(title)}</h1>\n{body}"""
    try:
        with atomic_file(path) as file:
            file.write(page.encode("utf-8", "backslashreplace"))  # lone surrogates are spelled out
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
