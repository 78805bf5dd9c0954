"""Reading CoNLL-U, the format of Universal Dependencies: articles, words, and the annotations of each word."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from conllu import parse
from conllu.exceptions import ParseException
from conllu.serializer import serialize_field

from decomp.corpus.article import Article
from decomp.corpus.parts import Parts, Span
from decomp.corpus.words import whitespace_words
from decomp.io.records import Record
from decomp.io.texts import read_text

SUFFIX = ".conllu"
OF_WORDS = ("lemma", "upos", "xpos", "feats", "head", "deprel")
ANNOTATIONS = ("sent_id", "token_id", *OF_WORDS)
"""The columns of annotations: the sentence's id, the word's number in it, and six fields of CoNLL-U."""
JOINED = "+"
"""The separator between the annotations of several tokens that are written as one word."""


@dataclass(frozen=True)
class SurfaceToken:
    """A token of CoNLL-U as it is written in the text: a word, or several words in one (German `zum`: zu + dem)."""

    form: str
    space_after: bool
    annotations: Mapping[str, str]
    """The annotations by the name of their column; those of several words are joined with `+`."""


@dataclass
class Document:
    """One document of a CoNLL-U file: the sentences from one line `# newdoc` to the next."""

    id: str
    tokens: list[SurfaceToken]
    ends: list[int] = field(default_factory=list)
    """For each sentence, the number of the document's tokens up to its end."""

    def text_and_spans(self) -> tuple[str, list[Span]]:
        """Return the document's text, and the span of characters of each token in it."""
        text, spans = "", list[Span]()
        for token in self.tokens:
            spans.append((len(text), len(text) + len(token.form)))
            text += token.form + " " * token.space_after
        return text.rstrip(), spans

    def article(self, default_id: str) -> Article:
        """Return the document as an article, whose words, between white space, have their tokens' annotations."""
        text, spans = self.text_and_spans()
        words = [(start, stop) for start, stop in whitespace_words(text).tolist()]
        own, first = list[list[Mapping[str, str]]](), 0
        for start, stop in words:
            while spans[first][1] <= start:
                first += 1
            last = first
            while last < len(spans) and spans[last][0] < stop:
                last += 1
            own.append([token.annotations for token in self.tokens[first:last]])
        annotations = {name: tuple(joined([each[name] for each in word]) for word in own) for name in ANNOTATIONS}
        sentences = tuple((spans[first][0], spans[end - 1][1]) for first, end in pairwise([0, *self.ends]))
        parts = Parts(sentences=sentences)
        return Article(text, self.id or default_id, parts, words=tuple(words), annotations=annotations)


def conllu_articles(path: Path, default_id: str = "") -> list[Article]:
    """Return the documents of a CoNLL-U file as articles; a file without a line `# newdoc` is one article."""
    return [document.article(default_id) for document in documents(path)]


def conllu_words(path: Path) -> Iterator[Record]:
    """Yield one record for each token of a CoNLL-U file: `article`, `word`, and a value for each annotation."""
    for number, document in enumerate(documents(path)):
        for place, token in enumerate(document.tokens):
            values = {"article": document.id or str(number), "word": token.form, **token.annotations}
            yield Record(f"{path}, token {place} of document {document.id or number}", values)


def documents(path: Path) -> list[Document]:
    """Return the documents of a CoNLL-U file. ValueError for a file that is malformed, or has no tokens."""
    try:
        sentences = parse(read_text(path))
    except ParseException as error:
        raise ValueError(f"{path} is no CoNLL-U: {' '.join(str(error).split())[:100]}") from error
    found: list[Document] = []
    for number, sentence in enumerate(sentences):
        known = sentence.metadata
        if not found or {"newdoc", "newdoc id"} & set(known):
            found.append(Document(known.get("newdoc id") or "", []))
        found[-1].tokens += surface_tokens(sentence, known.get("sent_id") or str(number))
        found[-1].ends.append(len(found[-1].tokens))
    if not any(document.tokens for document in found):
        raise ValueError(f"{path} has no tokens: expected CoNLL-U, ten columns between tabs")
    return found


def surface_tokens(sentence: Sequence[Mapping[str, Any]], sent_id: str) -> Iterator[SurfaceToken]:
    """Yield the tokens of one sentence as the text has them; empty nodes (numbered like `8.1`) are left out."""
    waiting: tuple[Mapping[str, Any], int] | None = None
    parts: list[Mapping[str, str]] = []
    for token in sentence:
        number = token["id"]
        if isinstance(number, tuple):
            waiting = (token, number[2]) if number[1] == "-" else waiting
            continue
        fields = {name: written(token.get(name)) for name in OF_WORDS}
        parts.append({"sent_id": sent_id, "token_id": str(number), **fields})
        if waiting is None or number == waiting[1]:
            whole = token if waiting is None else waiting[0]
            annotations = {name: joined([part[name] for part in parts]) for name in ANNOTATIONS}
            yield SurfaceToken(whole["form"], (whole.get("misc") or {}).get("SpaceAfter") != "No", annotations)
            waiting, parts = None, []


def joined(values: Sequence[str]) -> str:
    """Return one word's annotation from those of its tokens: joined with `+`, or the one value that all have."""
    different = list(dict.fromkeys(values))
    return values[0] if len(different) == 1 else JOINED.join(values)


def written(value: Any) -> str:
    """Return the value of a field as the file writes it; an empty string for `_`, the format's missing value."""
    text = serialize_field(value)
    return "" if text == "_" else text
