"""A model loaded from a file, with what the file says about its run."""

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
        _, known = self.own_text()
        return known == corpus.fingerprint if known else None

    def setting(self, name: str, kind: type, default: Any) -> Any:
        """Return a setting of its run, or ``default`` if the checkpoint has none of this type."""
        settings = self.checkpoint.get("settings")
        value = settings.get(name) if isinstance(settings, dict) else None
        return value if type(value) is kind else default

    def val_frac(self) -> float:
        """Return the share of the text that was held out; 0.1 if the checkpoint does not say."""
        val_frac = self.checkpoint.get("val_frac", 0.1)
        return val_frac if isinstance(val_frac, float) and 0 < val_frac < 1 else 0.1

    def own_text(self) -> tuple[str, str]:
        """Return encoding and fingerprint of the text it was trained on; "" if one is missing."""
        known = self.checkpoint.get("fingerprint")
        return self.setting("encoding", str, "utf-8"), known if isinstance(known, str) else ""

    @property
    def loss(self) -> float | None:
        """The held-out loss in nats per character; None if the checkpoint does not say."""
        loss = self.checkpoint.get("val_loss")
        return loss if isinstance(loss, float) and 0 <= loss < 100 else None

    @property
    def text_name(self) -> str:
        """The name of the text it was trained on; "" if the checkpoint does not say."""
        text = self.checkpoint.get("text")
        name = text.get("name") if isinstance(text, dict) else None
        return name if isinstance(name, str) else ""

    def how_split(self) -> tuple[str, float, int]:
        """Return what decides which part of the text was held out: --val-split, the share, and the
        seed (0 if the end was held out)."""
        val_split = self.setting("val_split", str, "end")
        seed = self.setting("seed", int, 0) % 2**63 if val_split != "end" else 0
        return val_split, self.val_frac(), seed

    def held_out(self, corpus: Corpus) -> Tensor:
        """Return the held-out ids of this text. Raises UserError as ``split_text`` does."""
        val_split, val_frac, seed = self.how_split()
        tokens = corpus.vocabulary.tokens
        return split_text(corpus.ids, val_frac, tokens, val_split, seed, corpus.file_ends)[1]


def load_model(path: str, device: str) -> LoadedModel:
    """Load a model in evaluation mode. Raises UserError as ``build_model`` does."""
    checkpoint = load_dict(path)
    return LoadedModel(
        path, build_model(checkpoint, path).to(pick_device(device)).eval(), checkpoint
    )
