"""Decompositions that `decomp decompose` stored, opened with their text."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from decomp.core.decomposition import Decomposition, load
from decomp.core.partition import Partition
from decomp.core.storage import pt_unembedding_path, unembedding_path
from decomp.corpus.cutting import Window
from decomp.corpus.windows import TokenisedWindow
from decomp.measures.result import Scores, finite
from decomp.tables.blocks import Block
from decomp.tables.columns import COLUMNS, SOURCE_LENGTH, Groups, scores_block
from decomp.tables.leading_columns import SPAN_COLUMNS, groups_of, span_columns

Tokens = Callable[[Int[Tensor, " T"]], tuple[bool, tuple[str, ...]]]
"""A function from token ids to whether the first is the beginning of sequence, and the strings of all."""
DELTA_LP_COLUMNS = (*SPAN_COLUMNS, *COLUMNS)
"""Columns of the table of ΔLP from stored decompositions whose sources are tokens."""


def with_text_spans(result: Decomposition, window: TokenisedWindow, **about: str) -> Decomposition:
    """Return a decomposition with its tokens and their spans of text, and `about` as further facts about it."""
    window_facts = {"window": json.dumps(asdict(window.window)), "places": json.dumps([*window.text_spans])}
    partition = result.partition
    if (groups := groups_of(window, None if partition.is_tokens else partition)) is not None:
        partition = Partition(partition.labels, tuple(groups.texts))
    return replace(result, tokens=window.tokens, about={**result.about, **window_facts, **about}, partition=partition)


@dataclass(frozen=True)
class StoredWindow:
    """A stored decomposition, the window that was decomposed, its tokens, and their spans of text."""

    name: str
    result: Decomposition
    window: Window
    tokens: tuple[str, ...]

    def text_spans(self) -> list[tuple[int | None, ...]]:
        """Return the word and characters of each token, all None for files that do not record them."""
        spans = json.loads(self.result.about.get("places", "null")) or [[None] * 3] * len(self.tokens)
        return [tuple(span) for span in spans]

    def delta_lp(self) -> Scores:
        """Return ΔLP of every stored source, in bits. ValueError for a damaged file, or scores that are not finite."""
        result, targets = self.result, self.window.targets
        scores, log2_prob = result.delta_lp(targets.start), result.next_log2_prob()
        begun = tuple(result.partition.begun.tolist()) if self.has_groups else None
        found = Scores("delta_lp", targets, result.decomposition_length, log2_prob, scores, {}, begun)
        return finite(found, self.name)

    @property
    def has_groups(self) -> bool:
        """Return whether sources are groups of tokens."""
        return not self.result.partition.is_tokens

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table of this window's ΔLP."""
        return (*SPAN_COLUMNS, SOURCE_LENGTH, *COLUMNS) if self.has_groups else DELTA_LP_COLUMNS

    def groups(self) -> Groups | None:
        """Return the sources as columns of a table; None where they are single tokens."""
        if not self.has_groups:
            return None
        partition = self.result.partition
        names = partition.names or tuple(map(str, range(partition.count)))
        return Groups(np.array(partition.begins), names, partition.labels.bincount().numpy())

    def block(self) -> Block:
        """Return the rows of the table of this window's ΔLP."""
        spans = span_columns(self.text_spans())
        of_sources = {"source_word": spans["word"]}
        return scores_block(self.delta_lp(), self.window, self.tokens, spans, of_sources, self.groups())

    def made(self) -> dict[str, Any] | None:
        """Return the account of how a table of this window's ΔLP is made; None where the file has none."""
        about = self.result.about
        if "weights" not in about:
            return None
        names = ("version", "model", "revision", "weights", "dtype")
        return {
            "command": "deltalp",
            "model": {name: about[name] for name in names if name in about},
            "corpus": about.get("corpus"),
            "options": {
                "activation_rule": about.get("activation_rule"),
                "gate_rule": about.get("gate_rule"),
                "decomposition_length": self.result.decomposition_length,
                "measures": ["delta_lp"],
            },
        }


def window_of(result: Decomposition, name: str) -> StoredWindow:
    """Return a decomposition as a stored window. ValueError for one that does not record its tokens and window."""
    window = json.loads(result.about.get("window", "null"))
    if window is None or result.tokens is None:
        raise ValueError(f"{name} does not say its tokens and window: make it with decomp decompose (decomp.decompose)")
    return StoredWindow(name, result, Window(**window), result.tokens)


def open_stored(name: str, path: Path, model: str, number: int, tokens_of: Tokens) -> StoredWindow:
    """Return a stored decomposition made with the model of this label, whose unembedding lies in the same folder.

    Files of the original format lack tokens and article: `tokens_of` gives the tokens, `number` is the article.
    ValueError for files that are damaged or of another model, and where the unembedding is missing.
    """
    pt = path.suffix == ".pt"
    beside = (pt_unembedding_path if pt else unembedding_path)(path.parent, model)
    result = load(path, beside if pt else None)
    if result.about.get("model", model) != model:
        raise ValueError(f"{path} was made with the model {result.about['model']}, not with {model}")
    if result.unembedding is None:
        raise ValueError(f"{beside} is missing, which ΔLP needs: decompose again")
    window = json.loads(result.about.get("window", "null"))
    if window is not None and result.tokens is not None:
        return StoredWindow(name, result, Window(**window), result.tokens)
    has_bos, tokens = tokens_of(result.input_ids)
    return StoredWindow(name, result, Window(number, 0, 0, len(tokens) - has_bos, 0, has_bos), tokens)
