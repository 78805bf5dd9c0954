"""Text: articles, words, windows of tokens, contrast items."""
