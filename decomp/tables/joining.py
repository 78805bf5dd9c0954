"""Predictors joined to a table of readers: each of its rows, with the columns of the word that it is about."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Int

from decomp.io.names import suggested
from decomp.tables.blocks import Block, Column, Row, Texts, length, plain, take_or_missing
from decomp.tables.parquet import column_of

SHOWN = 5
"""The most examples of mismatches that are shown."""
CLASH = "decomp_"
"""The prefix of our columns whose names the readers' table has, too."""


@dataclass(frozen=True)
class Key:
    """A pair of columns, theirs and ours, that must be equal in joined rows, theirs after a shift."""

    theirs: str
    ours: str
    shift: int = 0


def parse_key(text: str) -> Key:
    """Return the key that a text such as `zone=word+1` describes. ValueError for anything else."""
    match = re.fullmatch(r"([^=]+)=([A-Za-z_][\w]*)\s*(?:([+-])\s*(\d{1,9}))?", text.strip())
    if match is None:
        raise ValueError(f"--on must be THEIRS=OURS, if need be with a shift, such as zone=word+1, not {text!r}")
    shift = int(match[4] or 0)
    return Key(match[1].strip(), match[2], -shift if match[3] == "-" else shift)


@dataclass(frozen=True)
class JoinedTable:
    """The rows of the readers' table with the columns of their words, and an account of what did not match."""

    block: Block
    matched: int
    unmatched: tuple[tuple[Any, ...], ...]
    """Keys of the readers' table without a row of ours, the first few."""
    unread: int
    """The number of our rows without any row of the readers' table."""
    differing: tuple[tuple[str, str], ...]
    """Pairs of words, theirs and ours, that differ in matching rows, the first few."""
    different: int

    def report(self) -> str:
        """Return the lines that tell a person what matched and what did not."""
        lines = [f"{self.matched} of {length(self.block)} rows matched; {self.unread} words have no row"]
        if self.unmatched:
            lines.append(f"not matched, the first: {'; '.join(', '.join(map(str, key)) for key in self.unmatched)}")
        if self.different:
            shown = "; ".join(f"{theirs!r} is {ours!r} here" for theirs, ours in self.differing)
            lines.append(f"{self.different} rows have another word: {shown}")
        return "\n".join(lines)


def read_other(path: Path) -> Block:
    """Return a table of readers: CSV, TSV (.gz is unpacked) or Parquet. ValueError where it can't be read."""
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            table = pyarrow.parquet.read_table(path)
        elif name.endswith((".csv", ".tsv")):
            parsing = pyarrow.csv.ParseOptions(
                delimiter="\t" if name.endswith(".tsv") else ",", newlines_in_values=True
            )
            table = pyarrow.csv.read_csv(path, parse_options=parsing)
        else:
            raise ValueError(f"{path} must be .csv, .tsv or .parquet, to be joined")
    except (OSError, pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
        raise ValueError(f"can't read {path}: {str(error).splitlines()[0][:100]}") from error
    if twice := [name for number, name in enumerate(table.column_names) if name in table.column_names[:number]]:
        raise ValueError(f"{path} has two columns {twice[0]!r}: rename one")
    return {name: own_kind(table[name].combine_chunks(), path, name) for name in table.column_names}


def own_kind(array: Any, path: Path, name: str) -> Column:
    """Return an Arrow array as a column: numbers as numbers, all else as text."""
    types = pyarrow.types
    if types.is_null(array.type):
        array = array.cast(pyarrow.string())
    try:
        return column_of(array, name, own_kind=True)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: the column {name!r} can't be read ({str(error)[:100]})") from error


def join(theirs: Block, ours: Block, keys: Sequence[Key], word: str | None = None) -> JoinedTable:
    """Return all rows of `theirs` with the columns of the row of `ours` that has the same keys, or missing values.

    `word` is their column of words, to be compared with ours. ValueError for a column that is missing, keys of
    different kinds, keys that several rows of ours share, and where most rows do not match or have another word.
    """
    if not keys:
        raise ValueError("say which columns are the same: --on THEIR_COLUMN=OUR_COLUMN, such as --on zone=word+1")
    if not length(theirs):
        raise ValueError("the table to be joined has no rows")
    of_theirs = list(zip(*(key_values(theirs, key.theirs, ours, key.ours, 0) for key in keys), strict=True))
    of_ours = list(zip(*(key_values(ours, key.ours, ours, key.ours, key.shift) for key in keys), strict=True))
    rows = rows_with(of_theirs, of_ours, " and ".join(key.ours for key in keys))
    differing = different_words(theirs, ours, rows, word)
    lost = list(dict.fromkeys(key for key, row in zip(of_theirs, rows, strict=True) if row < 0))
    added = {
        f"{CLASH}{name}" if name in theirs else name: take_or_missing(column, rows) for name, column in ours.items()
    }
    found = JoinedTable(
        {**theirs, **added},
        int((rows >= 0).sum()),
        tuple(lost[:SHOWN]),
        len(of_ours) - len(np.unique(rows[rows >= 0])),
        tuple(dict.fromkeys(differing))[:SHOWN],
        len(differing),
    )
    refuse_most(found)
    return found


def rows_with(theirs: Sequence[Row], ours: Sequence[Row], names: str) -> Int[np.ndarray, " rows"]:
    """Return the row of ours with each of their keys, −1 where there is none.

    ValueError, with the `names` of the keys' columns, for one that several rows of ours share.
    """
    place = {key: number for number, key in enumerate(ours)}
    if len(place) < len(ours):
        twice = next(key for number, key in enumerate(ours) if place[key] != number)
        raise ValueError(
            f"{names} {', '.join(map(str, twice))} is in several rows here: add a key, and join a table of one "
            "measure and model"
        )
    return np.array([place.get(key, -1) for key in theirs])


def refuse_most(found: JoinedTable) -> None:
    """Raise ValueError where most rows do not match, or have another word."""
    if 2 * found.matched <= length(found.block) or 2 * found.different > found.matched:
        raise ValueError(f"most rows do not match: {'. '.join(found.report().splitlines())}. Change --on, or its shift")


def key_values(block: Block, name: str, ours: Block, our_name: str, shift: int) -> list[Any]:
    """Return the values of a key, shifted. ValueError for a column that is missing, or of another kind than ours."""
    for table, column, whose in ((block, name, "the table to be joined"), (ours, our_name, "the table")):
        if column not in table:
            raise ValueError(f"{whose} has no column {column!r}: {suggested(column, table, 'it has')}")
    values, is_text = plain(block[name]), isinstance(ours[our_name], Texts)
    if is_text:
        if shift:
            raise ValueError(f"{our_name!r} is text, which can't be shifted: leave out {shift:+}")
        return [None if value is None else str(value) for value in values]
    if isinstance(block[name], Texts) or any(isinstance(v, float) and v != int(v) for v in values):
        raise ValueError(f"{name!r} has to be whole numbers, as {our_name!r} is")
    return [None if value is None else int(value) + shift for value in values]


def different_words(
    theirs: Block, ours: Block, rows: Int[np.ndarray, " rows"], word: str | None
) -> list[tuple[str, str]]:
    """Return pairs of words, theirs and ours, that differ in matching rows. ValueError for a column without text."""
    if word is None:
        return []
    column = theirs.get(word)
    if not isinstance(column, Texts):
        raise ValueError(
            f"{word!r} is no column of words of the table to be joined: {suggested(word, theirs, 'it has')}"
        )
    own = plain(ours["token"])
    pairs = ((str(text).strip(), own[row].strip()) for text, row in zip(plain(column), rows, strict=True) if row >= 0)
    return [(one, other) for one, other in pairs if one != other]
