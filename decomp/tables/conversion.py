"""Long tables made into another table: merged, thinned out, summarised, turned into predictors, joined to readers'."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from decomp.tables.blocks import Block, block_of, concatenate
from decomp.tables.files import TableFile
from decomp.tables.joining import JoinedTable, Key, join
from decomp.tables.operations import merge, with_models
from decomp.tables.predictors import Predictors
from decomp.tables.provenance import Made, check_alike, made_together
from decomp.tables.reduction import Reduction, rounded
from decomp.tables.summary import summarise, summary_columns, warn_of_thinned


@dataclass(frozen=True)
class Conversion:
    """A change of a long table: fewer of its rows, or for each target one row of a summary or of predictors.

    ValueError for predictors of a table that is summarised or thinned out.
    """

    reduction: Reduction
    """The rows that are kept, and how numbers are rounded."""
    summary: bool = False
    """Whether the rows of each target become one row of a summary."""
    predictors: Predictors | None = None
    """The predictors that the rows of each target become; None for none."""

    def __post_init__(self) -> None:
        if self.predictors is not None and (self.summary or self.reduction.drops):
            raise ValueError("--predictors are of all sources: leave out --summary, --top and the others")

    @property
    def has_one_row(self) -> bool:
        """Return whether the new table has one row per target."""
        return self.summary or self.predictors is not None

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns of the new table, for a long table with these columns."""
        if self.predictors is not None:
            return self.predictors.columns(columns)
        left = self.reduction.columns(columns)
        return summary_columns(left) if self.summary else left

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the rows of the new table, from those of whole targets."""
        if not self.has_one_row:
            return map(self.reduction, blocks)
        rows = summarise(blocks, self.reduction) if self.predictors is None else self.predictors(blocks)
        return in_digits(rows, self.reduction.digits)

    def account(self) -> dict[str, Any]:
        """Return the options of the change that have an effect, as the account of the new table holds them."""
        given = {**asdict(self.reduction), "summary": self.summary, "predictors": self.predictors is not None}
        return {name: value for name, value in given.items() if value}


class ConvertedTable(NamedTuple):
    """A table that is to be written: its columns, the account of how it is made, and its rows."""

    columns: Sequence[str]
    made: Made | None
    blocks: Iterable[Block]


def in_digits(blocks: Iterable[Block], digits: int | None) -> Iterator[Block]:
    """Yield blocks with their real numbers rounded to `digits` after the point, or as they are for None."""
    return iter(blocks) if digits is None else map(partial(rounded, digits=digits), blocks)


def rounded_table(table: TableFile, digits: int | None) -> ConvertedTable:
    """Return any table as it is, but for its numbers' digits."""
    return ConvertedTable(table.columns, table.made(), in_digits(table.blocks(), digits))


def converted(
    paths: Sequence[Path], tables: Sequence[TableFile], conversion: Conversion, mixed: bool
) -> ConvertedTable:
    """Return long tables merged and converted; `paths` name them in errors.

    ValueError for tables that do not belong together, unless `mixed`, and for those that can't be merged.
    """
    made = [table.made() for table in tables]
    known = list(zip(paths, made, strict=True))
    if not mixed:
        check_alike(known)
    if conversion.has_one_row:
        warn_of_thinned(known)
    merged = with_models(tables, made)
    together = made_together(made, conversion.account())
    return ConvertedTable(conversion.columns(merged[0].columns), together, conversion(merge(merged)))


def joined(table: ConvertedTable, theirs: Mapping[str, Any], keys: Sequence[Key], word: str | None) -> JoinedTable:
    """Return the rows of the readers' table with the columns of a converted table; see `joining.join`."""
    return join(theirs, concatenate([block_of(table.columns, []), *table.blocks]), keys, word)
