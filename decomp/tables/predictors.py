"""Predictors for regressions of reading times: one row per word, from the rows of a long table.

They are about a word's surprisal, about which sources its scores come from, and about how that changes from word to
word.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from decomp.tables.blocks import Block, Column, Texts, changes, concatenate, length, numbers, present, take
from decomp.tables.columns import refuse_groups
from decomp.tables.reduction import BOS_POSITION, OF_SOURCES, first_rows, is_dropped, named

SPREAD = (
    "distal_max",
    "distal_sum",
    "mean_distance",
    "score_entropy",
    "normalised_entropy",
    "bos_share",
    "bias_share",
    "entropy_change",
    "manhattan",
)
"""Predictors from the distribution of one word's scores over its sources."""
PLACE = ("length", "sentence", "position_in_sentence")
RENAMED = {"log2_prob": "surprisal", "corrected_log2_prob": "corrected_surprisal"}
LAGGED = ("surprisal", "corrected_surprisal", "entropy", "length", "frequency", *SPREAD)
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]»]*$")
ABBREVIATIONS = {"Mr.", "Mrs.", "Ms.", "Dr.", "St.", "Prof.", "No.", "vs.", "etc.", "e.g.", "i.e."}
"""Words with a full stop that does not end a sentence."""

Numbers = Float[np.ndarray, " targets"]


@dataclass(frozen=True)
class Predictors:
    """The choice of predictors. ValueError for negative numbers."""

    distal: int = 10
    """The number of words (tokens) beyond which a source is distal."""
    spillover: int = 0
    """The number of preceding words whose predictors are repeated with each word."""
    frequency: Callable[[str], float] | None = None
    """A function that gives a word's frequency; None for no such predictor."""

    def __post_init__(self) -> None:
        if self.distal < 0 or self.spillover < 0:
            raise ValueError(f"distal and spillover must be from 0, not {self.distal} and {self.spillover}")

    def columns(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the columns of the predictors, for a long table with these columns.

        ValueError for a table whose sources are groups of tokens, which have no single distance.
        """
        refuse_groups(columns, "predictors are of the distances and shares of single tokens or words")
        own = [RENAMED.get(name, name) for name in columns if name not in OF_SOURCES]
        if taken := [name for name in own if name in (*PLACE, *SPREAD, "frequency")]:
            raise ValueError(f"the table has a column {taken[0]!r}, as predictors are called: rename it (in --words)")
        own += [*PLACE, *(["frequency"] if self.frequency else []), *SPREAD]
        lagged = [name for name in own if name in LAGGED]
        return (*own, *(f"{name}_{lag}" for lag in range(1, self.spillover + 1) for name in lagged))

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield one row per target, an article at a time; the given rows are whole targets, in order of article."""
        before: dict[tuple[int, str], Sources] = {}
        waiting: list[Block] = []
        article = None
        for segment in segments(blocks):
            now = int(numbers(segment["article"])[0])
            if now != article and waiting:
                yield self.article_predictors(concatenate(waiting))
                waiting = []
                before.clear()
            article = now
            waiting.append(segment_predictors(segment, self.distal, before))
        if waiting:
            yield self.article_predictors(concatenate(waiting))

    def article_predictors(self, block: Block) -> Block:
        """Return the rows of one article with the predictors that need a word's neighbours or place in the article."""
        found = dict(block)
        words = np.array(texts(block["token"]), dtype=object)
        found["length"] = lengths(block, words)
        position, (_, measure) = numbers(block["position"]), np.unique(measures(block), return_inverse=True)
        found["sentence"], found["position_in_sentence"] = sentences(position, words)
        if self.frequency is not None:
            known = {word: self.frequency(word) for word in dict.fromkeys(words)}
            found["frequency"] = np.array([known[word] for word in words])
        found = {name: found[name] for name in self.columns_without_lags(block)}
        lagged = [name for name in found if name in LAGGED]
        for lag in range(1, self.spillover + 1):
            rows = rows_before(measure, position, lag)
            for name in lagged:
                found[f"{name}_{lag}"] = np.where(rows < 0, np.nan, numbers(found[name]).astype(np.float64)[rows])
        return found

    def columns_without_lags(self, block: Block) -> list[str]:
        """Return the columns in order, without those of preceding words."""
        first = [name for name in block if name not in SPREAD]
        return [*first, *PLACE, *(["frequency"] if self.frequency else []), *SPREAD]


@dataclass(frozen=True)
class Sources:
    """The sources of one target, and their shares of the sum of absolute scores."""

    position: int
    """The target's position in its article."""
    sources: Int[np.ndarray, " sources"]
    shares: Float[np.ndarray, " sources"]
    entropy: float
    """The normalised entropy of the shares: 1 where all are the same."""


def segments(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield the rows of one article, window and measure at a time."""
    for block in blocks:
        names = [name for name in ("model", "item", "article", "window", "measure") if name in block]
        borders = np.any([changes(block[name]) for name in names], axis=0).nonzero()[0] + 1
        for start, stop in pairwise([0, *borders.tolist(), length(block)]):
            if stop > start:
                yield take(block, slice(start, stop))


@dataclass(frozen=True)
class Rows:
    """The rows of whole targets of one article, window and measure, as arrays."""

    target: Int[np.ndarray, " rows"]
    """The number of each row's target among these."""
    targets: Int[np.ndarray, " targets"]
    """The position of each target in the article."""
    score: Float[np.ndarray, " rows"]
    position: Int[np.ndarray, " rows"]
    """The position of each row's source."""
    distance: Int[np.ndarray, " rows"]
    is_source: Bool[np.ndarray, " rows"]
    """Whether a row is of a source that is a token (word) of the text."""
    is_bos: Bool[np.ndarray, " rows"]
    is_bias: Bool[np.ndarray, " rows"]
    whole: Numbers
    """The sum of all absolute scores of each target."""


def rows_of_targets(block: Block) -> Rows:
    """Return the rows of whole targets of one article, window and measure as arrays."""
    first = first_rows(block)
    target, count = np.cumsum(first) - 1, int(first.sum())
    score, position = numbers(block["score"]).astype(np.float64), numbers(block["source_position"])
    has_place = present(block["source_position"])
    is_bos = has_place & (position == BOS_POSITION)
    return Rows(
        target,
        numbers(block["position"])[first],
        score,
        position,
        numbers(block["distance"]),
        has_place & ~is_bos,
        is_bos,
        named(block, "<bias>") & ~has_place,
        np.bincount(target, np.where(is_dropped(block), 0, np.abs(score)), count),
    )


def segment_predictors(block: Block, distal: int, before: dict[tuple[int, str], Sources]) -> Block:
    """Return one row per target: the spread of its scores, and how this differs from that of the target before.

    `block` holds whole targets of one article, window and measure. `before` has, by article and measure, the last
    target of the segments before; it is brought up to date.
    """
    rows = rows_of_targets(block)
    shares, number = shares_of(rows)
    entropy, normalised = entropies(rows, shares, number)
    key = (int(numbers(block["article"])[0]), measures(take(block, slice(0, 1)))[0])
    own, sources = rows.target[rows.is_source], rows.position[rows.is_source]
    change, manhattan = from_word_to_word(before.get(key), rows.targets, own, sources, shares, normalised)
    last = own == len(rows.targets) - 1
    before[key] = Sources(int(rows.targets[-1]), sources[last], shares[last], float(normalised[-1]))
    return {
        **columns_of_targets(block),
        **distal_scores(rows, distal),
        "mean_distance": mean_distance(rows),
        "score_entropy": np.where(number > 0, entropy, np.nan),
        "normalised_entropy": normalised,
        "bos_share": share_of(rows.is_bos, rows),
        "bias_share": share_of(rows.is_bias, rows),
        "entropy_change": change,
        "manhattan": manhattan,
    }


def columns_of_targets(block: Block) -> Block:
    """Return the columns that are about targets, not sources, with a row for each target and surprisal in bits."""
    columns = take(block, first_rows(block)).items()
    named_so = {RENAMED.get(name, name): negated(c) if name in RENAMED else c for name, c in columns}
    return {name: column for name, column in named_so.items() if name not in OF_SOURCES}


def sums(values: Float[np.ndarray, " rows"], of: Bool[np.ndarray, " rows"], rows: Rows) -> Numbers:
    """Return the sum of the values of these rows for each target."""
    return np.bincount(rows.target[of], values[of], len(rows.targets))


def shares_of(rows: Rows) -> tuple[Float[np.ndarray, " sources"], Int[np.ndarray, " targets"]]:
    """Return the share of each source in its target's absolute scores, and the number of sources of each target."""
    size, own = np.abs(rows.score), rows.target[rows.is_source]
    total = sums(size, rows.is_source, rows)
    return size[rows.is_source] / np.where(total > 0, total, 1)[own], np.bincount(own, minlength=len(rows.targets))


def entropies(
    rows: Rows, shares: Float[np.ndarray, " sources"], number: Int[np.ndarray, " targets"]
) -> tuple[Numbers, Numbers]:
    """Return the entropy of each target's shares, in bits and as a part of the most that its sources allow."""
    own = rows.target[rows.is_source]
    entropy = np.bincount(own, -shares * np.log2(np.where(shares > 0, shares, 1)), len(rows.targets))
    return entropy, np.where(number > 1, entropy / np.log2(np.maximum(number, 2)), np.nan)


def distal_scores(rows: Rows, distal: int) -> Block:
    """Return the highest score and the sum of scores of sources beyond `distal`, missing where there are none."""
    is_far, count = rows.is_source & (rows.distance > distal), len(rows.targets)
    highest = np.full(count, -np.inf)
    np.maximum.at(highest, rows.target[is_far], rows.score[is_far])
    far = targets_with(is_far, rows.target, count)
    total = sums(rows.score, is_far, rows)
    return {"distal_max": np.where(far, highest, np.nan), "distal_sum": np.where(far, total, np.nan)}


def mean_distance(rows: Rows) -> Numbers:
    """Return the mean distance of each target's sources, weighted by absolute score; missing where all are 0."""
    size = np.abs(rows.score)
    return divided(sums(size * rows.distance, rows.is_source, rows), sums(size, rows.is_source, rows))


def from_word_to_word(
    before: Sources | None,
    targets: Int[np.ndarray, " targets"],
    own: Int[np.ndarray, " sources"],
    sources: Int[np.ndarray, " sources"],
    shares: Float[np.ndarray, " sources"],
    entropy: Numbers,
) -> tuple[Numbers, Numbers]:
    """Return how the shares of each target differ from those of the target before it: two absolute changes.

    These are the change of the normalised entropy, and the Manhattan distance (0 to 2) of the shares (Oh & Schuler
    2022); missing where the target before is not in the table.
    """
    if before is not None and before.position == targets[0] - 1:
        own = np.concatenate([np.zeros(len(before.sources), own.dtype), own + 1])
        sources, shares = np.concatenate([before.sources, sources]), np.concatenate([before.shares, shares])
        targets, entropy = np.append(before.position, targets), np.append(before.entropy, entropy)
        change, manhattan = from_word_to_word(None, targets, own, sources, shares, entropy)
        return change[1:], manhattan[1:]
    follows = np.append(False, np.diff(targets) == 1)
    room = int(sources.max(initial=0)) + 1
    keys = own.astype(np.int64) * room + sources
    there = np.searchsorted(keys, keys - room)
    shared = (there < len(keys)) & (keys[np.minimum(there, len(keys) - 1)] == keys - room) if len(keys) else there > 0
    earlier_share = np.where(shared, shares[np.minimum(there, max(len(keys) - 1, 0))], 0.0) if len(keys) else shares
    count = len(targets)
    # What the target before has and this one has not: all of it, less what both have.
    gone = np.append(0.0, np.bincount(own, shares, count)[:-1]) - np.bincount(own, earlier_share, count)
    distance = np.bincount(own, np.abs(shares - earlier_share), count) + gone
    change = np.abs(np.append(np.nan, np.diff(entropy)))
    return np.where(follows, change, np.nan), np.where(follows, distance, np.nan)


def negated(column: Column) -> Column:
    """Return log2 probabilities as surprisal in bits."""
    assert not isinstance(column, Texts)
    return 0.0 - column


def divided(above: Numbers, below: Numbers) -> Numbers:
    """Return quotients, missing where the denominator is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)


def targets_with(
    rows: Bool[np.ndarray, " rows"], group: Int[np.ndarray, " rows"], count: int
) -> Bool[np.ndarray, " targets"]:
    """Return which targets have any of these rows."""
    return np.bincount(group[rows], minlength=count) > 0


def share_of(of: Bool[np.ndarray, " rows"], rows: Rows) -> Numbers:
    """Return the share of these rows in the sum of all absolute scores of their target, missing where it has none."""
    share = divided(sums(np.abs(rows.score), of, rows), rows.whole)
    return np.where(targets_with(of, rows.target, len(rows.targets)), share, np.nan)


def measures(block: Block) -> list[str]:
    """Return the measure of each row, with its model where the table has several."""
    names = texts(block["measure"])
    return (
        [f"{model} {name}" for model, name in zip(texts(block["model"]), names, strict=True)]
        if "model" in block
        else names
    )


def texts(column: Column) -> list[Any]:
    """Return the texts of a column."""
    assert isinstance(column, Texts)
    return list(column.array())


def lengths(block: Block, words: "np.ndarray[Any, Any]") -> Int[np.ndarray, " targets"]:
    """Return the number of characters of each word: those of its place in the text, or else of its string."""
    counted = np.array([len(word) for word in words], np.int32)
    if "char_start" not in block:
        return counted
    placed = present(block["char_start"]) & present(block["char_end"])
    return np.where(placed, numbers(block["char_end"]) - numbers(block["char_start"]), counted).astype(np.int32)


def sentences(
    position: Int[np.ndarray, " targets"], words: "np.ndarray[Any, Any]"
) -> tuple[Int[np.ndarray, " targets"], Int[np.ndarray, " targets"]]:
    """Return the number of each word's sentence in its article, and the word's place in the sentence, both from 0.

    A sentence ends with a word that ends with . ! ? or …, apart from quotes and brackets after it, unless the word is a
    common abbreviation.
    """
    places, first = np.unique(position, return_index=True)
    ends = np.array([bool(SENTENCE_END.search(w)) and w not in ABBREVIATIONS for w in words[first]])
    number = np.cumsum(np.append(0, ends[:-1]))
    begins = np.append(True, np.diff(number) > 0).nonzero()[0]
    # Words that are not predicted count as words of the first sentence.
    start = np.where(number == 0, 0, places[begins[number]])
    row = np.searchsorted(places, position)
    return number[row].astype(np.int32), (places - start)[row].astype(np.int32)


def rows_before(
    measure: Int[np.ndarray, " targets"], position: Int[np.ndarray, " targets"], lag: int
) -> Int[np.ndarray, " targets"]:
    """Return the row of the same measure `lag` words before each row, −1 where there is none."""
    keys = measure.astype(np.int64) * (int(position.max()) + 1 + lag) + position
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys[order], keys - lag), len(keys) - 1)
    return np.where((keys[order][at] == keys - lag) & (position >= lag), order[at], -1)


def zipf_frequency(language: str) -> Callable[[str], float]:
    """Return a function that gives the Zipf frequency of a word: log10 of occurrences in a billion words.

    It gives 0 for unknown words. ValueError without wordfreq, and for a language that it lacks.
    """
    try:
        import wordfreq
    except ImportError as error:
        raise ValueError("--frequency needs wordfreq: pip install 'tokenwise-decomposition[frequency]'") from error
    if language not in wordfreq.available_languages():
        known = ", ".join(sorted(wordfreq.available_languages()))
        raise ValueError(f"there are no frequencies of words of {language!r}: wordfreq has {known}")
    return lambda word: float(wordfreq.zipf_frequency(word, language))
