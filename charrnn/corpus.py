"""Where the text comes from: a file, Anna Karenina, or the documentation inside Python itself."""

import hashlib
import http.client
import os
import pydoc_data.topics
import tempfile
import urllib.request
from pathlib import Path

from tqdm import tqdm

from charrnn.data import read_text
from charrnn.errors import UserError

ANNA = Path("data/anna.txt")
ANNA_URL = (
    "https://raw.githubusercontent.com/udacity/deep-learning-v2-pytorch/master/"
    "recurrent-neural-networks/char-rnn/data/anna.txt"
)
ANNA_BYTES = 2_025_486
ANNA_SHA256 = "568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9"


def load_corpus(data: str | None) -> str:
    """The text that ``--data`` names: None is Anna Karenina, ``python-docs`` needs no file at all.

    Raises UserError as ``read_text`` and ``download`` do.
    """
    if data == "python-docs":
        topics = pydoc_data.topics.topics
        return "\n".join(topics[name] for name in sorted(topics))
    if data is None and not ANNA.exists():
        download(ANNA_URL, ANNA, ANNA_BYTES, ANNA_SHA256)
    return read_text(ANNA if data is None else data)


def download(url: str, path: Path, size: int, sha256: str) -> None:
    """Fetch ``url`` to ``path``, which appears only when its size and SHA-256 are as expected.

    Raises UserError, one line with the three ways on, when anything goes wrong.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(url, timeout=30) as response,
            tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file,
            tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar,
        ):
            partial = file.name
            digest, received = hashlib.sha256(), 0
            # one byte more than expected is enough to know that it is another file
            while received <= size and (block := response.read(min(1 << 16, size + 1 - received))):
                file.write(block)
                digest.update(block)
                received += len(block)
                bar.update(len(block))
        if received != size:
            raise OSError(f"{received:,} bytes or more came instead of {size:,}")
        if digest.hexdigest() != sha256:
            raise OSError("another file came (its SHA-256 is wrong)")
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{path} could not be downloaded: {error}; put a text there yourself, "
            "name another with --data FILE, or use --data python-docs, which needs no network"
        ) from None
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
