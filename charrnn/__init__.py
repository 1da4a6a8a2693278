"""Train a character-level LSTM on a text and generate from it."""

from charrnn.checkpoint import load_checkpoint, save_checkpoint
from charrnn.data import Vocabulary, get_batches, one_hot_encode
from charrnn.generation import predict_next_char, sample
from charrnn.model import CharRNN, evaluate

__all__ = [
    "CharRNN",
    "Vocabulary",
    "evaluate",
    "get_batches",
    "load_checkpoint",
    "one_hot_encode",
    "predict_next_char",
    "sample",
    "save_checkpoint",
]
