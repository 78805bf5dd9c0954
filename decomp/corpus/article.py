"""One text of a corpus, with what its input file gives beside it: an id, words, annotations, parts, token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from decomp.corpus.parts import NO_PARTS, Parts
from decomp.io.texts import check_unicode


@dataclass(frozen=True)
class Article:
    """One text of a corpus, an article, with the id of its input file (an empty string where it gives none).

    ValueError for a text that holds half of a Unicode surrogate pair, which no tokenizer takes.
    """

    text: str
    """The text."""
    id: str = ""
    """The id in the input file, or an empty string."""
    parts: Parts = field(default=NO_PARTS, repr=False, compare=False)
    """The spans of sentences, lines, paragraphs and named segments that the input file itself marks."""
    ids: tuple[int, ...] | None = field(default=None, repr=False)
    """The token ids of an article that comes as token ids, from which its text is decoded; None for a text."""
    words: tuple[tuple[int, int], ...] | None = field(default=None, repr=False)
    """The first character and the one after the last of each word; None for words between white space."""
    annotations: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False, hash=False)
    """The annotations of the words: by the name of a column, a value for each word."""

    def is_empty(self) -> bool:
        """Return whether the article has neither text (white space aside) nor token ids."""
        return not self.text.strip() and not self.ids

    def content(self) -> bytes:
        """Return the bytes by which the article differs from others, for a digest of a corpus."""
        more = (self.ids, self.words, dict(self.annotations), self.parts.segments, self.parts.names)
        return (repr(self) + (repr(more) if any(more) else "")).encode()

    def __post_init__(self) -> None:
        check_unicode(self.text, f"article {self.id}" if self.id else "the text")
