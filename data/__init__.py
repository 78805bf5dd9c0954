"""The demo corpus and the demo models."""
