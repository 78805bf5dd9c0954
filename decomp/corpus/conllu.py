"""CoNLL-U, the format of Universal Dependencies: articles, words, and what is annotated of each word."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from conllu import parse
from conllu.exceptions import ParseException
from conllu.serializer import serialize_field

from decomp.corpus.article import Article
from decomp.corpus.parts import Parts
from decomp.corpus.words import Span, whitespace_words
from decomp.io.records import Record
from decomp.io.texts import read_text

SUFFIX = ".conllu"
OF_WORDS = ("lemma", "upos", "xpos", "feats", "head", "deprel")
ANNOTATIONS = ("sent_id", "token_id", *OF_WORDS)
"""Columns: the sentence, the word's number in it, and six fields of the format."""
JOINED = "+"
"""Between the annotations of several tokens that are one word."""


@dataclass(frozen=True)
class SurfaceToken:
    """What stands in the text: a word, or several that are written as one (`zum`: zu + dem)."""

    form: str
    space_after: bool
    annotations: Mapping[str, str]
    """By column; those of several words are joined by `+`."""


@dataclass
class Document:
    """What a line `# newdoc` begins."""

    id: str
    tokens: list[SurfaceToken]
    ends: list[int] = field(default_factory=list)
    """How many tokens there are up to the end of each sentence."""

    def text_and_spans(self) -> tuple[str, list[Span]]:
        """Return the text, and the characters of each token in it."""
        text, spans = "", list[Span]()
        for token in self.tokens:
            spans.append((len(text), len(text) + len(token.form)))
            text += token.form + " " * token.space_after
        return text.rstrip(), spans

    def article(self, default_id: str) -> Article:
        """Return the article, its words what stands between white space, with the annotations of their tokens."""
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
    """Return the documents of a CoNLL-U file as articles, all of it where no line `# newdoc` begins one."""
    return [document.article(default_id) for document in documents(path)]


def conllu_words(path: Path) -> Iterator[Record]:
    """Yield a row for each token of a CoNLL-U file, with its article and annotations, as a list of words has it."""
    for number, document in enumerate(documents(path)):
        for place, token in enumerate(document.tokens):
            values = {"article": document.id or str(number), "word": token.form, **token.annotations}
            yield Record(f"{path}, token {place} of document {document.id or number}", values)


def documents(path: Path) -> list[Document]:
    """Return the documents of a CoNLL-U file. ValueError for a file that is none, or has no tokens."""
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
    """Yield what stands in the text of a sentence; empty nodes (`8.1`) do not."""
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
    """Return the annotation of one word from those of its parts: all of them, but a sentence's name once."""
    different = list(dict.fromkeys(values))
    return values[0] if len(different) == 1 else JOINED.join(values)


def written(value: Any) -> str:
    """Return a field as the file has it, nothing where that is `_`."""
    text = serialize_field(value)
    return "" if text == "_" else text
