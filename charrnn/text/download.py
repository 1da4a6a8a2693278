"""Download *Anna Karenina*, the text that is read without ``--data``."""

import hashlib
import http.client
import urllib.request
from pathlib import Path

from tqdm import tqdm

from charrnn.errors import UserError
from charrnn.system.files import atomic_file

ANNA = Path("data/anna.txt")
ANNA_URL = (
    "https://raw.githubusercontent.com/udacity/deep-learning-v2-pytorch/master/"
    "recurrent-neural-networks/char-rnn/data/anna.txt"
)
ANNA_BYTES = 2_025_486
ANNA_SHA256 = "568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9"


def find_anna() -> str:
    """Return the name of the text, which is downloaded unless it is there. Raises UserError as
    ``download`` does."""
    if not ANNA.exists():
        download(ANNA_URL, ANNA, ANNA_BYTES, ANNA_SHA256)
    return str(ANNA)


def download(url: str, path: Path, size: int, sha256: str) -> None:
    """Save ``url`` as ``path``, if its size in bytes and its SHA-256 are as expected.

    Raises UserError, one line with three other ways to get a text, when anything goes wrong.
    """
    body = bytearray()
    try:
        with (
            urllib.request.urlopen(url, timeout=30) as response,
            tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar,
        ):
            # one byte too many already shows that it is another file
            while len(body) <= size and (block := response.read(1 << 16)):
                body += block
                bar.update(len(block))
        if len(body) != size:
            raise OSError(f"{len(body):,} bytes or more came instead of {size:,}")
        if hashlib.sha256(body).hexdigest() != sha256:
            raise OSError("another file came (its SHA-256 is wrong)")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(body)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{path} could not be downloaded: {error}; put a text there yourself, "
            "name another with --data FILE, or use --data python-docs, which needs no network"
        ) from None
