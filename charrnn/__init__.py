"""Train a character-level LSTM on a text and generate from it."""

from charrnn import start  # noqa: F401, before torch

# isort: split
from charrnn.checkpoint import load_checkpoint, save_checkpoint
from charrnn.data import Vocabulary, get_batches, one_hot_encode
from charrnn.evaluation import evaluate
from charrnn.generation import next_char_probabilities, predict_next_char, sample
from charrnn.model import CharRNN

__all__ = [
    "CharRNN",
    "Vocabulary",
    "evaluate",
    "get_batches",
    "load_checkpoint",
    "next_char_probabilities",
    "one_hot_encode",
    "predict_next_char",
    "sample",
    "save_checkpoint",
]
