"""Accounts of how tables were made: written with each table, and checked by all that reads it.

A Parquet file carries its account in the metadata; a TSV, CSV or JSONL file has it beside, in `FILE.meta.json`. It is
no comment line: tokens may begin with `#`, and readers that skip comments (`comment="#"` of pandas, `comment.char` of
R) would silently cut such rows in two. And it is no first record of JSONL, which readers would take for a row.
"""

import gzip
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decomp.io.digests import LENGTH, file_digest
from decomp.io.files import write_whole

Made = Mapping[str, Any]
"""The account of how a table was made, as JSON: command, model (with the digest of its weights), options."""

SUFFIX = ".meta.json"
METADATA_KEY = b"decomp"
"""The key of the account in the metadata of a Parquet file."""
VERSION = 1
FREE = {"format", "torch", "transformers", "options.measures", "options.memory", "options.batch_size"}
"""Entries of the account that may differ between tables that belong together."""

logger = logging.getLogger(__name__)


def provenance_path(table: Path) -> Path:
    """Return the path of the account beside a text table; that of `a.tsv.gz` is that of `a.tsv`."""
    return Path(f"{str(table).removesuffix('.gz')}{SUFFIX}")


def write_provenance(table: Path, made: Made, content: Path | None = None) -> None:
    """Write the account of how a text table was made beside it, with a digest that shows later changes of its bytes.

    `content` is the file that holds these bytes, if they are not yet under the table's name.
    """
    entry = {"version": VERSION, "table": file_digest(content or table), "made": made}
    write_whole(provenance_path(table), json.dumps(entry, ensure_ascii=True, indent=1).encode() + b"\n")


def read_provenance(table: Path) -> Made | None:
    """Return the account of how a table was made, None where there is none.

    ValueError where it is damaged, of a newer package, or for another content than the table has now.
    """
    beside = provenance_path(table)
    if ".parquet" in table.suffixes:
        return parquet_provenance(table)
    if not beside.exists():
        return None
    entry = entry_of(beside)
    if entry is None:
        raise ValueError(f"{beside} is damaged: remove it, or make {table} again")
    if entry["version"] > VERSION:
        raise ValueError(f"{beside} has version {entry['version']}, this package reads up to {VERSION}: upgrade it")
    if entry["table"] != content_digest(table):
        raise ValueError(f"{table} has changed since {beside} was written: make it again, or remove {beside.name}")
    return entry["made"]


def parquet_provenance(table: Path) -> Made | None:
    """Return the account in the metadata of a Parquet table, None where there is none.

    ValueError for a file that can't be read, or is not a Parquet table.
    """
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(table)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ValueError(f"can't read {table}: {str(error).splitlines()[0][:100]}") from error
    content = (schema.metadata or {}).get(METADATA_KEY)
    return None if content is None else json.loads(content)["made"]


def parquet_metadata(made: Made | None) -> dict[bytes, bytes]:
    """Return the metadata of a Parquet table that hold the account of how it was made."""
    entry = {"version": VERSION, "made": made}
    return {} if made is None else {METADATA_KEY: json.dumps(entry, ensure_ascii=True).encode()}


def entry_of(beside: Path) -> dict[str, Any] | None:
    """Return the account in a file beside a table, None where it holds nothing of the kind."""
    try:
        entry = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and {"version", "table", "made"} <= set(entry) else None


def content_digest(table: Path) -> str:
    """Return the digest of a table's bytes, unpacked where its name ends in `.gz`. ValueError for a damaged file."""
    if table.suffix != ".gz":
        return file_digest(table)
    total = hashlib.sha256()
    try:
        with gzip.open(table) as file:
            while content := file.read(2**20):
                total.update(content)
    except (OSError, EOFError) as error:
        raise ValueError(f"{table} is truncated or no gzip file: write it again") from error
    return total.hexdigest()[:LENGTH]


def check_same(table: Path, made: Made | None, expected: Made) -> None:
    """Raise ValueError, with every difference, for a table that was made otherwise than expected.

    `expected` has the entries that matter, such as `{"model": model.about(), "options": {"bos": True}}`; all others may
    differ. A warning is given where there is no account.
    """
    if made is None:
        logger.warning("%s does not say how it was made: that it fits is not checked", table)
        return
    known = {key: made.get(key) for key in expected}
    if different := differences(known, expected, "in the table", "expected", only_expected=True):
        raise ValueError(f"{table} was made otherwise ({'; '.join(different)}): make it again, or ask the same")


def check_alike(tables: Sequence[tuple[Path, Made | None]]) -> None:
    """Raise ValueError, with every difference, for tables that do not belong together.

    Tables belong together if their accounts differ only in the measures and in entries that change no result. A warning
    names tables without an account.
    """
    known = [(path, made) for path, made in tables if made is not None]
    if len(tables) > 1:
        for path, made in tables:
            if made is None:
                logger.warning("%s does not say how it was made: that it fits the others is not checked", path)
    for path, made in known[1:]:
        first, there = known[0]
        if different := differences(there, made, f"in {first}", f"in {path}", free=FREE):
            raise ValueError(
                f"{path} was made otherwise than {first} ({'; '.join(different)}): only tables of the same corpus, "
                "model and options belong together; --mixed merges them all the same"
            )


def made_together(tables: Sequence[Made | None], done: Made) -> Made | None:
    """Return the account of a table merged from others; `done` says what else was done with the rows.

    None where one of the tables has no account.
    """
    known = [made for made in tables if made is not None]
    if len(known) < len(tables) or not known:
        return None
    first, *others = known
    if any(differences(first, other, "", "", free=FREE) for other in others):
        first = {"command": "table", "tables": known}
    elif others:
        measures = dict.fromkeys(measure for made in known for measure in made["options"].get("measures", ()))
        first = {**first, "options": {**first["options"], "measures": list(measures)}}
    return {**first, "table": done} if done else first


def differences(
    found: Made,
    expected: Made,
    of_found: str,
    of_expected: str,
    prefix: str = "",
    *,
    free: frozenset[str] | set[str] = frozenset(),
    only_expected: bool = False,
) -> list[str]:
    """Return a line for each entry that differs, such as `options.stride: 10 in the run, 20 asked`.

    Nested entries are compared one by one. Entries in `free` are skipped, and with `only_expected` also those that
    `expected` lacks.
    """
    lines = []
    for key in sorted({*expected} if only_expected else {*found, *expected}):
        old, new, name = found.get(key), plain(expected.get(key)), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, of_found, of_expected, f"{name}.", free=free, only_expected=only_expected)
        elif old != new and name not in free:
            lines.append(f"{name}: {json.dumps(old)} {of_found}, {json.dumps(new)} {of_expected}")
    return lines


def plain(value: Any) -> Any:
    """Return a value as it comes back from JSON: a tuple as a list."""
    return json.loads(json.dumps(value))
