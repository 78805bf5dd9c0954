"""Sources that are groups of tokens, as parts of a shown text: where each begins and ends, what it is called."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from decomp.report.readable import INSIDE
from decomp.tables.columns import SOURCE_LENGTH
from decomp.tables.table import Table

SHORTEST_BLOCK = 3
"""Words that groups have on average where each is a block of text."""
MOST_GAPS = 3
"""Parts of a group's text that are looked for between predicted tokens."""
ELSEWHERE = " …"
"""Stands for tokens of a group whose text stands before, as a whole."""
Indices = Int[np.ndarray, " _"]


def has_groups(table: Table) -> bool:
    """Return whether a table's sources are groups of tokens."""
    return SOURCE_LENGTH in table.columns


def stops_of(table: Table, is_source: Bool[np.ndarray, " rows"], positions: Indices) -> Indices:
    """Return for each place the one behind the source that begins there, the next place where none does.

    A source ends where the next of its window begins, if not before: of one with gaps, the part before the first gap is
    meant. Of sources that begin at one place in several windows, the longest.
    """
    window, position, begin, length = (
        np.ma.filled(table[name], 0)[is_source] for name in ("window", "position", "source_position", SOURCE_LENGTH)
    )
    windows, number = np.unique(window, return_inverse=True)
    last = np.full(len(windows), -1)
    np.maximum.at(last, number, position)
    groups = np.unique(np.stack([number, begin, length]), axis=1)
    number, begin, length = groups
    following = np.where(np.append(np.diff(number) == 0, False), np.append(begin[1:], 0), last[number] + 1)
    stops = np.arange(len(positions)) + 1
    end = np.searchsorted(positions, np.minimum(begin + length, following))
    np.maximum.at(stops, np.searchsorted(positions, begin), end)
    return stops


def behind_targets(position: Indices, source_position: Indices) -> Indices:
    """Return the positions behind predicted tokens where others follow that a table has as parts of groups alone."""
    known = np.union1d(position, source_position)
    return np.setdiff1d(position[position < known.max(initial=0)] + 1, known)


def with_groups(
    pieces: Sequence[str], labels: Mapping[int, str], positions: Indices, stops: Indices, targets: Indices
) -> list[str]:
    """Return the pieces of a text, what is not predicted from the texts of groups, `labels` by their first places.

    Where several places of a predicted token in its group are possible, the group stands as a whole before it.
    """
    known, shown = set(targets.tolist()), list(pieces)
    for place, label in labels.items():
        own = range(place, int(stops[place]))
        if positions[place] < 0 or known.issuperset(own):
            continue
        parts = aligned(label, [pieces[n] if n in known else None for n in own])
        if parts is None:
            parts = [pieces[n] if n in known else ELSEWHERE for n in own]
            parts = parts if place in known else [label, *parts[1:]]
        lead = " " if place > 0 and positions[place - 1] >= 0 else ""
        shown[place : own.stop] = [lead + parts[0].lstrip(), *parts[1:]]
    return shown


def aligned(text: str, parts: Sequence[str | None]) -> list[str] | None:
    """Return the parts of a text with their white space, those too that are not known (None).

    None where the known ones do not stand in it, or in several ways.
    """
    if parts.count(None) > MOST_GAPS:
        return None
    known = [None if part is None else rf"(\s*{re.escape(part.strip())})" for part in parts]
    found = [re.fullmatch("".join(own or gap for own in known), text, re.DOTALL) for gap in (r"(.+?)", r"(.*\S)")]
    ways = [match and match.groups() for match in found]
    return list(ways[0]) if ways[0] is not None and ways[0] == ways[1] else None


def names_of(labels: Mapping[int, str], pieces: Sequence[str], stops: Indices) -> dict[int, str]:
    """Return the names of sources that are called other than the text at their places, by the place of their begin."""
    texts = {place: "".join(pieces[place : stops[place]]) for place in labels}
    return {
        place: label
        for place, label in labels.items()
        if INSIDE not in texts[place] and letters(label) != letters(texts[place])
    }


def letters(text: str) -> str:
    """Return a text without its white space."""
    return "".join(text.split())


def blocks_of(sources: Indices, stops: Indices, positions: Indices, pieces: Sequence[str]) -> list[int]:
    """Return the places at which blocks of text begin where sources are longer than words: those of the sources that
    begin in no other, and those behind tokens that the table does not have."""
    begins = np.unique(sources)
    outer = begins[begins >= np.concatenate([[0], np.maximum.accumulate(stops[begins])])[: len(begins)]]
    if len("".join(pieces).split()) < SHORTEST_BLOCK * len(outer):
        return []
    unknown = np.flatnonzero((np.diff(positions) > 1) & ~np.isin(np.arange(len(positions) - 1), begins)) + 1
    return sorted({*outer.tolist(), *unknown.tolist()})
