"""A model loaded from a file, with what the file says about its run."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from charrnn.network.checkpoint import build_model, load_dict
from charrnn.network.device import pick_device
from charrnn.network.model import CharRNN
from charrnn.text.corpus import Corpus
from charrnn.text.split import split_text


@dataclass(frozen=True)
class LoadedModel:
    """A loaded checkpoint: the network, and the dict it was built from."""

    path: str
    net: CharRNN
    checkpoint: dict[str, Any]

    @property
    def description(self) -> str:
        """The file, the cell and the size, in words."""
        net = self.net
        return f"{self.path}: {net.cell} {net.n_hidden} \u00d7 {net.n_layers}"

    def trained_on(self, corpus: Corpus) -> bool | None:
        """Return whether the model was trained on this text; None if that is not known."""
        known = self.get("fingerprint", default="")
        return known == corpus.fingerprint if known else None

    def get(self, *keys: str, default: Any) -> Any:
        """Return the value at these nested keys of the checkpoint, or ``default`` if there is none
        of the same type."""
        value: Any = self.checkpoint
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value if type(value) is type(default) else default

    def own_text(self) -> tuple[str, str]:
        """Return encoding and fingerprint of the text it was trained on; "" if one is missing."""
        encoding = self.get("settings", "encoding", default="utf-8")
        return encoding, self.get("fingerprint", default="")

    @property
    def loss(self) -> float | None:
        """The held-out loss in nats per character; None if the checkpoint does not say."""
        loss = self.get("val_loss", default=math.nan)
        return loss if 0 <= loss < 100 else None

    @property
    def text_name(self) -> str:
        """The name of the text it was trained on; "" if the checkpoint does not say."""
        return self.get("text", "name", default="")

    def how_split(self) -> tuple[str, float, int]:
        """Return what decides which part of the text was held out: --val-split, the share (0.1 if
        the checkpoint does not say), and the seed (0 if the end was held out)."""
        val_frac = self.get("val_frac", default=0.1)
        val_split = self.get("settings", "val_split", default="end")
        seed = self.get("settings", "seed", default=0) % 2**63 if val_split != "end" else 0
        return val_split, val_frac if 0 < val_frac < 1 else 0.1, seed

    def held_out(self, corpus: Corpus) -> Tensor:
        """Return the held-out ids of this text. Raises UserError as ``split_text`` does."""
        val_split, val_frac, seed = self.how_split()
        tokens = corpus.vocabulary.tokens
        return split_text(corpus.ids, val_frac, tokens, val_split, seed, corpus.file_ends)[1]


def load_model(path: str, device: str) -> LoadedModel:
    """Load a model in evaluation mode. Raises UserError as ``build_model`` does."""
    checkpoint = load_dict(path)
    net = build_model(checkpoint, path).to(pick_device(device)).eval()
    return LoadedModel(path, net, checkpoint)
