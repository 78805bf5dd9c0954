"""An article: a text of a corpus, and what its input says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from decomp.corpus.parts import NO_PARTS, Parts
from decomp.io.texts import check_unicode


@dataclass(frozen=True)
class Article:
    """A text, and the id that its input gives it (empty where it gives none).

    ValueError for a text with half of a surrogate pair: no tokenizer takes it.
    """

    text: str
    id: str = ""
    parts: Parts = field(default=NO_PARTS, repr=False, compare=False)
    """Where its sentences, lines, paragraphs and segments are, as far as the text itself does not say."""
    ids: tuple[int, ...] | None = field(default=None, repr=False)
    """Its tokens where it comes as these alone; the text is then theirs."""
    words: tuple[tuple[int, int], ...] | None = field(default=None, repr=False)
    """The characters of its words; None where these are what stands between white space."""
    annotations: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False, hash=False)
    """By column, what is known of each word."""

    def is_empty(self) -> bool:
        """Return whether there is neither text nor tokens."""
        return not self.text.strip() and not self.ids

    def content(self) -> bytes:
        """Return all that tells it from other articles."""
        more = (self.ids, self.words, dict(self.annotations))
        return (repr(self) + (repr(more) if any(more) else "")).encode()

    def __post_init__(self) -> None:
        check_unicode(self.text, f"article {self.id}" if self.id else "the text")
