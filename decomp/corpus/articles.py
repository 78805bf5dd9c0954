"""Reading a corpus into articles: `!ARTICLE` text, plain text, tables; from a file, a folder, or standard input."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decomp.corpus.article import Article
from decomp.corpus.context_items import has_segments, text_of_item
from decomp.corpus.parts import parts_of_lines
from decomp.io.records import COLUMNAR, SUFFIXES, Record, parse_json, rows_in
from decomp.io.texts import STDIN, read_text, suffix_of

HEADER = "!ARTICLE"
MARKER = re.compile(rf"{HEADER}(?:\s+(?P<title>.*))?")
"""The line that begins an article, which may hold the article's title."""
ALMOST_MARKER = re.compile(r"!\s*article.*", re.IGNORECASE)
INPUT_FORMATS = ("text", *(suffix[1:] for suffix in SUFFIXES), "conllu")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputFormat:
    """The format of a corpus, and which columns of its tables hold the text and the id of an article."""

    name: str | None = None
    """The format, one of `INPUT_FORMATS`; None for the one of the file's suffix, `text` where that is unknown."""
    text_field: str = "text"
    """The column (or field of JSON lines) that holds an article's text, or its list of token ids."""
    id_field: str = "id"
    """The column that holds an article's id; a table may lack it."""


AS_THE_NAME_SAYS = InputFormat()


def read_articles(path: str | Path, form: InputFormat = AS_THE_NAME_SAYS) -> list[Article]:
    """Return the articles of a corpus, in order; an article may be empty.

    A text file with lines `!ARTICLE` has one article after each (the title that may follow on that line becomes the
    article's id); a text file without is one article. A table (CSV, TSV, JSON lines, Parquet, Arrow) has one article
    in each row. A folder has the articles of all its files that are not hidden, in the order of their names; a
    folder that the library `datasets` saved has those of the data set. The path `-` is standard input, and files
    that end in `.gz` are unpacked.

    ValueError for a file that is missing, not UTF-8, malformed, too large, or without text.

        >>> from pathlib import Path
        >>> _ = Path("two.txt").write_text("!ARTICLE cats\\nThe cat sat.\\n!ARTICLE dogs\\nA dog barked.")
        >>> [(article.id, article.text) for article in read_articles("two.txt")]
        [('cats', 'The cat sat.'), ('dogs', 'A dog barked.')]
    """
    path = Path(path)
    check_fields(path, form)
    if path.is_dir() and (saved := dataset_files(path)) is not None:
        articles = [article for file in saved for article in read_file(file, form)]
    elif path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        articles = [article for file in files for article in read_file(file, form, default_id=file.name)]
    else:
        articles = read_file(path, form)
    if all(article.is_empty() for article in articles):
        raise ValueError(f"{path} has no text: expected a text, or lines of text after lines {HEADER}")
    return articles


def check_fields(path: Path, form: InputFormat) -> None:
    """Raise ValueError where columns are named, and a file, or all files of a folder, are text without columns."""
    if (form.text_field, form.id_field) == (AS_THE_NAME_SAYS.text_field, AS_THE_NAME_SAYS.id_field):
        return
    files = path.iterdir() if path.is_dir() else [path]
    if not any(input_suffix(file, form) in SUFFIXES for file in files):
        raise ValueError(
            f"{path} has no columns: leave out --text-field and --id-field (text_field=, id_field=), or give a table, "
            f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )


def input_suffix(path: Path, form: InputFormat) -> str:
    """Return the suffix that says how a file is read: its own, or that of the given format."""
    return suffix_of(path) if form.name is None else f".{form.name}"


def corpus_name(path: Path) -> str:
    """Return the short name of a corpus: its file's name without suffixes, or `stdin`."""
    return "stdin" if str(path) == STDIN else Path(path.name.removesuffix(".gz")).stem


def read_file(path: Path, form: InputFormat, default_id: str = "") -> list[Article]:
    """Return the articles of one file; those without an id of their own get `default_id`."""
    suffix = input_suffix(path, form)
    if suffix in COLUMNAR and str(path) == STDIN:
        raise ValueError(f"{suffix[1:].title()} can't be read from standard input: give the file")
    if suffix == ".conllu":
        from decomp.corpus.conllu import conllu_articles

        return conllu_articles(path, default_id)
    if suffix in SUFFIXES:
        return [table_article(record, form, default_id) for record in rows_in(path, suffix)]
    return text_articles(read_text(path), str(path), default_id)


def dataset_files(folder: Path) -> list[Path] | None:
    """Return the files of a data set that the library `datasets` saved in `folder`, in order; None for other folders.

    ValueError for a data set with several splits, of which one has to be chosen, and for a damaged one.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(path.parent.name for path in folder.glob("*/state.json"))
        raise ValueError(
            f"{folder} has the splits {', '.join(splits)}: give one of them, such as {folder / splits[0]}"
            if splits
            else f"{folder} is a data set without a split: save it again"
        )
    if not (folder / "state.json").is_file():
        return None
    state = parse_json(read_text(folder / "state.json"), str(folder / "state.json"))
    try:
        return [folder / Path(file["filename"]).name for file in state["_data_files"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'state.json'} names no files of a data set: save it again") from error


def text_articles(text: str, name: str = "the text", default_id: str = "") -> list[Article]:
    """Return the articles of a text with lines `!ARTICLE`, or the whole text as one article where it has none.

    The lines of an article are joined with one space; a text without such lines stays as it is. Text before the first
    `!ARTICLE` is an article of its own. A warning is logged for such text, and for lines that look like `!ARTICLE`
    and are read as text.
    """
    lines = [line.strip() for line in text.splitlines()]
    warn_of_almost_markers(lines, name)
    markers = [number for number, line in enumerate(lines) if MARKER.fullmatch(line)]
    if not markers:
        return [Article(text.replace("\r\n", "\n").rstrip(), default_id)]
    before = joined(lines[: markers[0]], default_id)
    if before.text:
        logger.warning("%s has text before its first line %s: it is read as an article of its own", name, HEADER)
    ends = [*markers[1:], len(lines)]
    articles = [
        joined(lines[start + 1 : stop], title_of(lines[start]) or default_id)
        for start, stop in zip(markers, ends, strict=True)
    ]
    return [before, *articles] if before.text else articles


def joined(lines: list[str], article_id: str) -> Article:
    """Return the article whose text is the given lines, joined with one space; empty lines are left out."""
    return Article(" ".join(filter(None, lines)), article_id, parts_of_lines(lines))


def title_of(line: str) -> str:
    """Return the title that follows `!ARTICLE` on its line; an empty string where none does."""
    marker = MARKER.fullmatch(line)
    return (marker["title"] or "").strip() if marker else ""


def warn_of_almost_markers(lines: list[str], name: str) -> None:
    """Warn, in one message, of all lines that look like `!ARTICLE` and are read as text."""
    almost = [n for n, line in enumerate(lines, 1) if ALMOST_MARKER.fullmatch(line) and not MARKER.fullmatch(line)]
    if almost:
        more = f" (and {len(almost) - 1} more)" if len(almost) > 1 else ""
        logger.warning(
            "%s, line %d%s, %r, is read as text: articles are set apart by lines %s, alone or with a title",
            *(name, almost[0], more, lines[almost[0] - 1][:40], HEADER),
        )


def table_article(record: Record, form: InputFormat, default_id: str) -> Article:
    """Return the article in one row of a table: a text, token ids, or a context in segments with its answer.

    ValueError for a row without any of these, or with an id of another type.
    """
    text, article_id = record.values.get(form.text_field), record.values.get(form.id_field)
    if not isinstance(article_id, str | int | None):
        raise ValueError(f"{record.place}: the id must be text or a number, it is {article_id!r}")
    article_id = default_id if article_id is None else str(article_id)
    if isinstance(text, list) and text and all(type(token) is int and token >= 0 for token in text):
        return Article("", article_id, ids=tuple(text))
    if text is None and has_segments(record.values):
        context, parts = text_of_item(record)
        return Article(context, article_id, parts)
    if not isinstance(text, str):
        raise ValueError(
            f"{record.place} has no text in {form.text_field!r}: it has "
            f"{', '.join(map(str, record.values))}; say which field it is with --text-field (text_field=)"
        )
    return Article(text, article_id)


def articles_of_rows(rows: Iterable[Mapping[str, Any]], form: InputFormat = AS_THE_NAME_SAYS) -> list[Article]:
    """Return the articles of rows in memory, such as a data set of the library `datasets`.

    ValueError for a row without the column of the text, and where no row has text.
    """
    articles = [table_article(Record(f"row {number}", row), form, "") for number, row in enumerate(rows)]
    if all(article.is_empty() for article in articles):
        raise ValueError(f"there is no text in the {len(articles)} rows of the data set")
    return articles
