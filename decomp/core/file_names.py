"""The names of the files of stored decompositions; importing it takes no torch."""

import re
from collections.abc import Iterable
from pathlib import Path

SUFFIX = ".safetensors"


def stored_identifiers(folder: Path) -> dict[str, Path]:
    """Return the files of all decompositions in a folder, of either format, by their identifiers."""
    ours = {p.stem: p for p in folder.glob(f"*{SUFFIX}") if not p.stem.endswith("_unembedding")}
    return {p.stem[2:]: p for p in folder.glob("d_*.pt")} | ours


def numbered(run: str, identifiers: Iterable[str]) -> dict[int, str]:
    """Return the identifiers of the form `{run}_{n}`, by their number n."""
    matches = (re.fullmatch(re.escape(run) + r"_(\d+)", name) for name in identifiers)
    return {int(match[1]): match[0] for match in matches if match}
