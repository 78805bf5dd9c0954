"""Text as models are given it: articles of a corpus, words, windows of tokens, contrast and context items."""
