"""Exact token-wise decomposition of causal language models' hidden states, and ΔLP."""

from functools import cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decomp.api import (
        agreement,
        alignment,
        context,
        contrast,
        decompose,
        evaluate_context,
        faithfulness,
        load_table,
        score,
        write_report,
    )
    from decomp.core.decomposition import Decomposition, load
    from decomp.corpus.articles import read_articles
    from decomp.corpus.windows import windows_of
    from decomp.measures import SCORES
    from decomp.measures.custom import register_measure
    from decomp.models import load_model, register
    from decomp.tables.inseq import load_inseq, write_inseq
    from decomp.tables.table import Table

PUBLIC = {
    "Decomposition": "decomp.core.decomposition",
    "SCORES": "decomp.measures",
    "Table": "decomp.tables.table",
    **dict.fromkeys(("score", "context", "contrast", "decompose", "load_table", "write_report"), "decomp.api"),
    **dict.fromkeys(("faithfulness", "alignment", "agreement", "evaluate_context"), "decomp.api"),
    "load": "decomp.core.decomposition",
    **dict.fromkeys(("load_inseq", "write_inseq"), "decomp.tables.inseq"),
    "load_model": "decomp.models",
    "read_articles": "decomp.corpus.articles",
    "register": "decomp.models",
    "register_measure": "decomp.measures.custom",
    "windows_of": "decomp.corpus.windows",
}
"""Public names and their modules, imported on first use: `import decomp` must not import torch."""

__all__ = [
    "SCORES",
    "Decomposition",
    "Table",
    "agreement",
    "alignment",
    "context",
    "contrast",
    "decompose",
    "evaluate_context",
    "faithfulness",
    "load",
    "load_inseq",
    "load_model",
    "load_table",
    "read_articles",
    "register",
    "register_measure",
    "score",
    "windows_of",
    "write_inseq",
    "write_report",
]


@cache
def installed_version() -> str:
    """Return the version of the installed package; what is decomposed says it each time."""
    return metadata.version("tokenwise-decomposition")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return installed_version()
    if name not in PUBLIC:
        raise AttributeError(f"module 'decomp' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
