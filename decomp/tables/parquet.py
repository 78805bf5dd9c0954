"""Tables as compact Parquet: 32-bit positions, scores in the precision that they were computed in, each text once.

Texts are kept once in each row group.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from decomp.tables.blocks import TYPES, Block, Column, Row, Texts, Values, block_of, concatenate, length, missing, take
from decomp.tables.provenance import Made, parquet_metadata

ROW_GROUP = 2**20
"""The number of rows that are held, packed and read at once: a reader of few columns or rows skips the others."""
BATCH = 2**17
"""The number of rows that are read at once."""
SMALL = {
    *("article", "window", "position", "source_position", "distance", "span", "word", "char_start", "char_end"),
    *("source_word", "source_length", "dropped", "strongest_source_position", "strongest_distance"),
}
"""Columns of integers that are kept in 32 bits."""
LEVEL = 6
"""The compression level of zstd: higher ones take longer and save little."""


class RowGroups:
    """A writer of row groups of equal size to a Parquet file: rows wait until there are enough for a group."""

    def __init__(self, file: IO[bytes], columns: Sequence[str], made: Made | None) -> None:
        self.file, self.columns, self.made = file, columns, made
        self.waiting: list[Block] = [block_of(columns, [])]
        self.writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, table: Iterable[Row] | Block) -> None:
        """Take rows, or a block of them, and write the groups that they complete."""
        blocks = (table,) if isinstance(table, Mapping) else blocks_of_rows(self.columns, table)
        for block in blocks:
            self.waiting.append(block)
            if sum(map(length, self.waiting)) >= ROW_GROUP:
                self.write_groups()

    def write_groups(self) -> None:
        """Write the whole groups among the waiting rows."""
        block = concatenate(self.waiting)
        stop = length(block) // ROW_GROUP * ROW_GROUP
        for start in range(0, stop, ROW_GROUP):
            self.write_group(take(block, slice(start, start + ROW_GROUP)))
        self.waiting = [take(block, slice(stop, None))]

    def write_group(self, group: Block) -> None:
        """Write one group; the first one decides the types of the columns."""
        self.writer = self.writer or open_writer(self.file, group, self.made)
        if length(group):
            self.writer.write_table(arrow_table(group, self.writer.schema), ROW_GROUP)

    def finish(self) -> None:
        """Write the rows that wait, fewer than a group; without any rows, the columns alone."""
        rest = concatenate(self.waiting)
        if length(rest) or self.writer is None:
            self.write_group(rest)


def blocks_of_rows(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[Block]:
    """Yield rows as blocks."""
    rows = iter(rows)
    while some := list(islice(rows, BATCH)):
        yield block_of(columns, some)


@contextmanager
def parquet_writer(
    file: IO[bytes], columns: Sequence[str], made: Made | None
) -> Iterator[Callable[[Iterable[Row] | Block], None]]:
    """Open a Parquet file, and give the function that writes rows to it, in row groups of equal size.

    Columns outside of `TYPES` have the type of their first value. The bytes depend on the rows alone, not on the blocks
    that they come in.
    """
    groups = RowGroups(file, columns, made)
    try:
        yield groups.write
        groups.finish()
    finally:
        if groups.writer is not None:
            groups.writer.close()


def open_writer(file: IO[bytes], first: Block, made: Made | None) -> pyarrow.parquet.ParquetWriter:
    """Return a Parquet writer whose encoding of each column suits the first row group.

    Distances are kept as differences; other integers as they are (sources repeat from target to target, which zstd
    sees); real numbers byte by byte, unless they have few distinct values; all others as a dictionary.
    """
    kinds = {name: arrow_type(name, column) for name, column in first.items()}
    schema = pyarrow.schema(list(kinds.items())).with_metadata(parquet_metadata(made))
    packed = {
        name: "DELTA_BINARY_PACKED" if name == "distance" else "PLAIN"
        for name, kind in kinds.items()
        if pyarrow.types.is_integer(kind)
    }
    packed |= {
        name: "BYTE_STREAM_SPLIT"
        for name, kind in kinds.items()
        if pyarrow.types.is_floating(kind) and has_many(np.asarray(first[name]))
    }
    return pyarrow.parquet.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=LEVEL,
        use_dictionary=[name for name in kinds if name not in packed],
        column_encoding=packed,
        dictionary_pagesize_limit=2**23,
    )


def has_many(values: "np.ndarray[Any, Any]") -> bool:
    """Return whether numbers have so many distinct values that a dictionary saves little: less than about a third."""
    different = len(np.unique(values))
    references = np.log2(max(different, 2)) / 8 * len(values)
    return references + different * values.itemsize > 0.65 * values.itemsize * len(values)


def arrow_type(name: str, column: Column) -> Any:
    """Return the Arrow type of a column."""
    if isinstance(column, Texts):
        return pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    if column.dtype.kind == "i":
        return pyarrow.int32() if name in SMALL else pyarrow.int64()
    return pyarrow.from_numpy_dtype(column.dtype)


def arrow_table(block: Block, schema: Any) -> Any:
    """Return a block as an Arrow table. ValueError for a column of another type than in the rows before."""
    arrays = [arrow_column(ordered(block[field.name])) for field in schema]
    try:
        arrays = [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)]
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"rows that no table of {', '.join(schema.names)} can hold ({error})") from error
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def ordered(column: Column) -> Column:
    """Return a column of texts with only the texts that it uses, in order of appearance; other columns as they are."""
    if not isinstance(column, Texts):
        return column
    first = np.full(len(column.texts) + 1, -1)
    first[column.codes[::-1]] = np.arange(len(column.codes))[::-1]
    (used,) = (first[:-1] >= 0).nonzero()
    used = used[np.argsort(first[used])]
    codes = np.full(len(column.texts) + 1, -1, np.int32)
    codes[used] = np.arange(len(used), dtype=np.int32)
    return Texts(codes[column.codes], tuple(column.texts[code] for code in used))


def arrow_column(column: Column) -> Any:
    """Return a column as an Arrow array: texts as dictionaries, missing values null."""
    none = missing(column)
    if isinstance(column, Texts):
        codes = pyarrow.array(column.codes, mask=none)
        return pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(column.texts, pyarrow.string()))
    return pyarrow.array(np.ma.getdata(column), mask=none if none.any() else None)


def open_parquet(path: Path) -> Any:
    """Return an open Parquet file. ValueError for a file that is missing or of another kind."""
    try:
        return pyarrow.parquet.ParquetFile(path)
    except OSError as error:
        raise ValueError(f"can't read {path}: {error}") from error
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is truncated or no Parquet file ({error}): write it again") from error


def parquet_blocks(path: Path) -> Iterator[Block]:
    """Yield the rows of a Parquet file. ValueError for a file that is damaged, and numbers that are not finite."""
    with open_parquet(path) as file:
        try:
            for batch in file.iter_batches(BATCH):
                arrays = zip(batch.schema.names, batch.columns, strict=True)
                yield {name: column_of(array, name) for name, array in arrays}
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is damaged, or has columns that are none of a table ({error})") from error


def column_of(array: Any, name: str, own_kind: bool = False) -> Column:
    """Return an Arrow array as a column of the type of its name, or with `own_kind` of the array's own.

    ArrowInvalid where its values are not of that type.
    """
    kind = kind_of(array.type) if own_kind else TYPES.get(name) or kind_of(array.type)
    if kind is str:
        return texts_column(array)
    if kind is int:
        array = array.cast(pyarrow.int32() if name in SMALL and not own_kind else pyarrow.int64())
    elif kind is float:
        array = array.cast(pyarrow.float32() if array.type == pyarrow.float32() else pyarrow.float64())
        return finite(array)
    else:
        array = array.cast(pyarrow.bool_())
    if not array.null_count:
        return array.to_numpy(zero_copy_only=False)
    filled = pyarrow.compute.fill_null(array, False if kind is bool else 0).to_numpy(zero_copy_only=False)
    return np.ma.array(filled, mask=array.is_null().to_numpy(zero_copy_only=False))


def finite(array: Any) -> Values:
    """Return real numbers, NaN where they are missing. ArrowInvalid for one that is infinite or NaN."""
    values = array.to_numpy(zero_copy_only=False)
    if np.isfinite(values).sum() + array.null_count < len(values):
        raise pyarrow.ArrowInvalid("expected finite numbers")
    return values


def kind_of(arrow: Any) -> type:
    """Return the Python type that an Arrow type is read as."""
    types = pyarrow.types
    return (
        int if types.is_integer(arrow)
        else float if types.is_floating(arrow)
        else bool if types.is_boolean(arrow)
        else str
    )  # fmt: skip


def texts_column(array: Any) -> Texts:
    """Return an Arrow array of texts, a dictionary or not, as a column."""
    if not pyarrow.types.is_dictionary(array.type):
        array = array.cast(pyarrow.string()).dictionary_encode()
    codes = pyarrow.compute.fill_null(array.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    texts = array.dictionary.cast(pyarrow.string())
    used = np.unique(codes[codes >= 0])
    places = np.full(len(texts) + 1, -1, np.int32)
    places[used] = np.arange(len(used), dtype=np.int32)
    return Texts(places[codes], tuple(texts.take(pyarrow.array(used)).to_pylist()))
