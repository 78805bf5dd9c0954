"""Which layers write an answer."""
