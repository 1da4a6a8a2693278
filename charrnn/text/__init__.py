"""Files -> ids: encodings, the vocabulary, and the part that is held out."""
