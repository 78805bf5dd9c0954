"""The articles of a corpus: `!ARTICLE` text, plain text, JSONL, CSV or TSV; in a file, a folder, or standard input."""

from dataclasses import dataclass
from pathlib import Path

from decomp.io.records import STDIN, SUFFIXES, Record, read_text, suffix_of, table_rows

HEADER = "!ARTICLE"
INPUT_FORMATS = ("text", *(suffix[1:] for suffix in SUFFIXES))


@dataclass(frozen=True)
class Article:
    """A text, and the id that its input gives it (empty where it gives none)."""

    text: str
    id: str = ""


@dataclass(frozen=True)
class InputFormat:
    """How a corpus is to be read, where its files do not say."""

    name: str | None = None
    """One of `INPUT_FORMATS`; by default what the suffix says, `text` where it says nothing."""
    text_field: str = "text"
    """Column or field of a table that holds the text,"""
    id_field: str = "id"
    """and the one with the article's id, if there is one."""


AS_THE_NAME_SAYS = InputFormat()


def read_articles(path: str | Path, form: InputFormat = AS_THE_NAME_SAYS) -> list[Article]:
    """The articles of a corpus; an article may be empty.

    A text file is a sequence of articles if its first line is `!ARTICLE`, and one article if not. A table
    has an article in each row, a folder those of all its files that are not hidden, in order of name. `-` is
    standard input; `.gz` is unpacked.

    ValueError for a file that is missing, not UTF-8, malformed, or without text.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        articles = [article for file in files for article in read_file(file, form, default_id=file.name)]
    else:
        articles = read_file(path, form)
    if not any(article.text.strip() for article in articles):
        raise ValueError(f"{path} has no text: expected a text, or lines of text after lines {HEADER}")
    return articles


def corpus_name(path: Path) -> str:
    """What a corpus is called in the names of its files."""
    return "stdin" if str(path) == STDIN else Path(path.name.removesuffix(".gz")).stem


def read_file(path: Path, form: InputFormat, default_id: str = "") -> list[Article]:
    """The articles of one file; `default_id` is for those that have none of their own."""
    text = read_text(path)
    suffix = suffix_of(path) if form.name is None else f".{form.name}"
    if suffix in SUFFIXES:
        return [table_article(record, form, default_id) for record in table_rows(path, text, suffix)]
    return [Article(article, default_id) for article in text_articles(text)]


def text_articles(text: str) -> list[str]:
    """Those of `!ARTICLE` text, the lines of each joined with one space; or the text as it stands."""
    lines = [line.strip() for line in text.splitlines()]
    if next(filter(None, lines), HEADER) != HEADER:
        return [text.replace("\r\n", "\n").rstrip()]
    articles: list[list[str]] = []
    for line in filter(None, lines):
        if line == HEADER:
            articles.append([])
        else:
            articles[-1].append(line)
    return [" ".join(content) for content in articles]


def table_article(record: Record, form: InputFormat, default_id: str) -> Article:
    """The article of a row, its text as it stands. ValueError where it has no text."""
    text, article_id = record.values.get(form.text_field), record.values.get(form.id_field)
    if not isinstance(text, str):
        raise ValueError(
            f"{record.place} has no text in {form.text_field!r}: it has {', '.join(map(str, record.values))}; "
            "say which field it is with --text-field"
        )
    return Article(text, default_id if article_id is None else str(article_id))
