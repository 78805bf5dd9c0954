"""Tables in a terminal: running text in colour, the ranked sources of a prediction, an excerpt of distant sources."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click
import numpy as np

from decomp.io.names import suggested
from decomp.report.contexts import is_context, lines_of
from decomp.report.readable import one_line, shortened
from decomp.report.texts import ShownText, texts_of
from decomp.tables.table import Table

Ramp = tuple[Mapping[str, Any], ...]
BLACK = 16
PLUS: Ramp = ({"fg": 172}, {"fg": BLACK, "bg": 180}, {"fg": BLACK, "bg": 215}, {"fg": BLACK, "bg": 208})
MINUS: Ramp = ({"fg": 68}, {"fg": BLACK, "bg": 110}, {"fg": BLACK, "bg": 75}, {"fg": BLACK, "bg": 33})
SURPRISAL: Ramp = ({"fg": 97}, {"fg": BLACK, "bg": 146}, {"fg": BLACK, "bg": 140}, {"fg": BLACK, "bg": 134})
"""Colours of words, from weak to strong, among a terminal's 256: weak ones colour the letters, strong ones the ground.

Those of scores are orange and blue, which all eyes tell apart.
"""
FULL = 0.97
"""The quantile of absolute scores from which on colours are full."""
BAR = 24
"""The number of characters of the longest bar."""
LONGEST_TEXT = 400
"""The most tokens of a text that is shown whole when no target is chosen."""
EXCERPT = 12
"""The number of predictions in an excerpt."""
ALL_SHOWN = 40
"""The number of predictions up to which an excerpt has all of them."""
STRONGEST = 3
"""The number of sources shown for each prediction of an excerpt."""
LONGEST_LABEL = 48
"""The most characters of a source in a list with one on each line."""
SHORT_LABEL = 24
"""The most characters of a source where several stand on a line."""
LABELS = {"delta_lp": "ΔLP in bits"}
DISTANT = 10
"""The distance in tokens from which on a source counts as distant."""

Shade = Callable[[int, str], str]
"""A function from a place and its text to that text in colour."""


def shown(
    table: Table, measure: str | None = None, target: int | str | None = None, top: int = 10, width: int = 80
) -> str:
    """Return a table as text for a terminal of `width` columns, with the codes of its colours.

    With a `target`, the position of a predicted token (or "last"): the text in the colours of its sources' scores, and
    the `top` sources. Without: a short text in the colours of surprisal, and an excerpt. `measure` is by default the
    table's first. A table of contexts without a target: all segments in order of rank, by default of all measures.
    ValueError for a measure or a target that the table has not.
    """
    number = measure_number(table, measure)
    if is_context(table) and target is None:
        return "\n".join(lines_of(table if measure is None else table.select(measure=measure)))
    texts = texts_of(table)
    name = LABELS.get(table.measures()[number], table.measures()[number])
    if target is not None:
        text = texts[0]
        return "\n".join(of_target(text, number, name, target_at(text, target), top, width))
    lines = []
    if len(texts) == 1 and len(texts[0].pieces) <= LONGEST_TEXT:
        lines = [*running(texts[0], by_surprisal(texts[0]), width), ""]
    return "\n".join([*lines, *excerpt(texts, number, name)])


def measure_number(table: Table, measure: str | None) -> int:
    """Return the index of a measure among those of the table. ValueError for one that the table lacks."""
    measures = table.measures()
    if measure is not None and measure not in measures:
        raise ValueError(f"the table has no measure {measure!r}: {suggested(measure, measures)}")
    return 0 if measure is None else measures.index(measure)


def target_at(text: ShownText, position: int | str) -> int:
    """Return the index of the target at a position. ValueError where nothing is predicted there."""
    positions = text.positions[text.targets].tolist()
    if position == "last":
        return len(positions) - 1
    if position not in positions:
        raise ValueError(
            f"{text.name} has no predicted token at {position}: they are at {positions[0]} to {positions[-1]}"
        )
    return positions.index(position)


def of_target(text: ShownText, measure: int, name: str, target: int, top: int, width: int) -> Iterator[str]:
    """Yield a target's context in the colours of its scores, a line on the target, and its strongest sources."""
    place = int(text.targets[target])
    pairs = np.arange(text.starts[target], text.starts[target + 1])
    pairs = pairs[~np.isnan(text.scores[measure, pairs])]
    first = int(text.sources[pairs].min(initial=place))
    yield from running(text, by_scores(text, measure, pairs, place), width, first, place + 1)
    log2_prob = float(text.log2_prob[target])
    yield ""
    yield f"{one_line(text.pieces[place])!r} at {text.positions[place]}: {2**log2_prob:.3g} ({0 - log2_prob:.2f} bits)"
    yield f"{name:>12}  back  source"
    yield from ranked(text, measure, pairs, place, top)
    for label, values in text.extra.items():
        if not math.isnan(score := float(values[measure, target])):
            yield f"{number(score, 1):>12}        {label}"


def ranked(text: ShownText, measure: int, pairs: np.ndarray, place: int, top: int) -> Iterator[str]:
    """Yield a line for each of the sources with the largest absolute scores, the longest bar first."""
    scores = text.scores[measure]
    order = pairs[np.argsort(-np.abs(scores[pairs]), kind="stable")][:top]
    most = float(np.abs(scores[order]).max(initial=0)) or 1.0
    labels = [shortened(text.source(source), LONGEST_LABEL) for source in text.sources[order].tolist()]
    wide = max(16, *map(len, labels), 0)
    for pair, label in zip(order, labels, strict=True):
        source, score = int(text.sources[pair]), float(scores[pair])
        distance = "" if text.positions[source] < 0 else text.positions[place] - text.positions[source]
        bar = click.style("█" * math.ceil(BAR * abs(score) / most), fg=(PLUS if score > 0 else MINUS)[-1]["bg"])
        yield f"{number(score, most):>12}  {distance:>4}  {label:<{wide}} {bar}"


def number(score: float, most: float) -> str:
    """Return a score with its sign, and as many digits as the size of the strongest asks for."""
    return f"{score:+.2f}" if most >= 1 else f"{score:+.4f}" if most >= 0.01 else f"{score:+.2e}"


def by_surprisal(text: ShownText) -> Shade:
    """Return the colours of surprisal; the highest twentieth has the full colour."""
    limit = float(np.quantile(-text.log2_prob, 0.95)) or 1.0
    shares = dict(zip(text.targets.tolist(), (-text.log2_prob / limit).tolist(), strict=True))
    return lambda place, piece: tinted(piece, SURPRISAL, shares.get(place, 0.0))


def by_scores(text: ShownText, measure: int, pairs: np.ndarray, chosen: int) -> Shade:
    """Return the colours of the scores of these pairs; the chosen target is shown in reverse."""
    every = np.abs(text.scores[measure])
    limit = float(np.nanquantile(every, FULL)) or 1.0
    scored = zip(text.sources[pairs].tolist(), (text.scores[measure, pairs] / limit).tolist(), strict=True)
    shares = {place: share for source, share in scored for place in range(source, text.stop(source))}

    def shade(place: int, piece: str) -> str:
        if place == chosen:
            return click.style(piece, reverse=True, bold=True)
        share = shares.get(place, 0.0)
        return tinted(piece, PLUS if share > 0 else MINUS, abs(share))

    return shade


def tinted(text: str, ramp: Ramp, share: float) -> str:
    """Return text in a colour of the ramp; without colour for shares below half a step."""
    step = min(len(ramp), round(share * len(ramp)))
    return click.style(text, **ramp[step - 1]) if step > 0 else text


def running(text: ShownText, shade: Shade, width: int, first: int = 0, stop: int | None = None) -> Iterator[str]:
    """Yield the lines of the running text, broken at white space."""
    line, column = "", 0
    for place in range(first, len(text.pieces) if stop is None else stop):
        before, piece, after = split_piece(text.pieces[place])
        if "\n" in before or (before and column + len(before) + letters(text, place) > width and line):
            yield line
            line, column, before = "", 0, ""
        line += (before if line else "") + shade(place, piece)
        column += len(before) + len(piece)
        after = after or ("" if text.positions[place] >= 0 else " ")
        if "\n" in after:
            yield line
            line, column = "", 0
        else:
            line, column = line + after, column + len(after)
    if line:
        yield line


def letters(text: ShownText, place: int) -> int:
    """Return the number of characters from a place on that stand together, up to white space."""
    together = text.pieces[place].lstrip()
    while not together[-1:].isspace() and place + 1 < len(text.pieces) and not text.pieces[place + 1][:1].isspace():
        place += 1
        together += text.pieces[place]
    return len(together.rstrip())


def split_piece(piece: str) -> tuple[str, str, str]:
    """Return the white space before a piece, the piece, and the white space after it."""
    found = re.fullmatch(r"(\s*)(.*?)(\s*)", piece, re.DOTALL)
    assert found is not None
    return found[1].replace("\t", " "), found[2], found[3].replace("\t", " ")


def excerpt(texts: Sequence[ShownText], measure: int, name: str, count: int = EXCERPT) -> list[str]:
    """Return lines with the strongest sources of the predictions that rest most on a distant token, or of all if few.

    They stand in reading order. The beginning of sequence is left out: it soaks up what has no other place.
    """
    targets = [(text, target) for text in texts for target in range(len(text.targets))]
    scores = [distant_score(text, target, measure) for text, target in targets]
    chosen = np.argsort(-np.array(scores), kind="stable")[: count if len(targets) > ALL_SHOWN else None]
    head = "article" if all(text.name.startswith("article ") for text in texts) else "text"
    names = [text.name.removeprefix("article ") for text, _ in targets]
    width = max(len(head), *map(len, names))
    lines = [f"{head:<{width}}  position  token         log2 P   rests on ({name}, how many tokens before)"]
    for number in sorted(chosen.tolist()):
        text, target = targets[number]
        place = int(text.targets[target])
        lines.append(
            f"{names[number]:>{width}}  {text.positions[place]:>8}  {spaced(text.pieces[place]):<12} "
            f"{text.log2_prob[target]:>7.2f}   {strongest(text, target, measure)}"
        )
    return lines


def pairs_of(text: ShownText, target: int, measure: int) -> np.ndarray:
    """Return the pairs of a target that have a score and whose source is a token, highest scores first."""
    pairs = np.arange(text.starts[target], text.starts[target + 1])
    scores = text.scores[measure, pairs]
    kept = (text.positions[text.sources[pairs]] >= 0) & ~np.isnan(scores)
    return pairs[kept][np.argsort(-scores[kept], kind="stable")]


def distant_score(text: ShownText, target: int, measure: int) -> float:
    """Return the highest score of a distant source, 0 where there is none."""
    pairs = pairs_of(text, target, measure)
    ends = np.array([text.end(source) for source in text.sources[pairs].tolist()], dtype=np.int64)
    far = pairs[text.positions[text.targets[target]] - ends >= DISTANT]
    return float(text.scores[measure, far].max(initial=0))


def strongest(text: ShownText, target: int, measure: int) -> str:
    """Return a target's strongest sources, their scores and distances, as text."""
    place = int(text.targets[target])
    pairs = pairs_of(text, target, measure)[:STRONGEST]
    labels = [source_label(text, source) for source in text.sources[pairs].tolist()]
    back = text.positions[place] - text.positions[text.sources[pairs]]
    found = zip(labels, text.scores[measure, pairs], back, strict=True)
    return "   ".join(f"{label} {score:+.2f} ({distance})" for label, score, distance in found)


def source_label(text: ShownText, source: int) -> str:
    """Return a source as a label in a list of several, the space that a token begins with as `_`."""
    return shortened(spaced(text.pieces[source]) if text.stops is None else text.source(source), SHORT_LABEL)


def spaced(piece: str) -> str:
    """Return a piece as a label, with `_` for the space that it begins with."""
    return ("_" if piece.startswith(" ") else "") + one_line(piece)
