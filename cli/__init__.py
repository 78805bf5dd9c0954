"""The `decomp` command."""
