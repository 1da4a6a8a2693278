"""Train a character-level LSTM on a text and generate from it.

Each folder imports only from the folders above it in this list:

system    the terminal, the command line, checks of values, safe files
text      files -> ids: encodings, the vocabulary, the held-out part
network   ids -> logits -> loss: the model, its file, its evaluation
writing   state -> text: primes, drawing, the fast decoder, the conversation, likely words
training  what the loop in train.py calls: settings, batches, optimizers, the plan of a run
run       what a run keeps and prints: its files, its log, its report
pages     the web pages, and the analysis behind each

The programs eval, curves, neurons and share stand beside them, train.py and sample.py above.
"""

from charrnn import before_torch  # noqa: F401, before torch

# isort: split
from charrnn.network.checkpoint import load_checkpoint, save_checkpoint
from charrnn.network.evaluation import evaluate
from charrnn.network.model import CharRNN, one_hot_encode
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.batches import get_batches
from charrnn.writing.generation import next_char_probabilities, predict_next_char, sample
from charrnn.writing.words import next_word_probabilities

__all__ = [
    "CharRNN",
    "Vocabulary",
    "evaluate",
    "get_batches",
    "load_checkpoint",
    "next_char_probabilities",
    "next_word_probabilities",
    "one_hot_encode",
    "predict_next_char",
    "sample",
    "save_checkpoint",
]
