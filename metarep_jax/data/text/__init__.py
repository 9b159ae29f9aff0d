"""Text: corpora, sentences with classes, tokenizers, and rows of tokens."""
