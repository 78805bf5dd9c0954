"""The kinds of sources, and checks that need no tokens; importing it takes no torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from decomp.corpus.article import Article

if TYPE_CHECKING:
    from decomp.corpus.sources import Sources
    from decomp.corpus.windows import Unit

SourceKind = Literal["token", "word", "sentence", "line", "paragraph", "segment"]
SOURCE_KINDS: tuple[str, ...] = get_args(SourceKind)


def check_sources(sources: "Sources | None", unit: "Unit" = "token") -> None:
    """Raise ValueError for an unknown kind of sources, and for sources smaller than the words that are predicted."""
    if isinstance(sources, str) and sources not in SOURCE_KINDS:
        raise ValueError(
            f"sources must be one of {', '.join(SOURCE_KINDS)}, or a label for each token: not {sources!r}"
        )
    if unit == "word" and not (sources is None or (isinstance(sources, str) and sources != "token")):
        raise ValueError("sources of words are words or larger: leave out --unit word for tokens and labels as sources")


def has_groups(sources: "Sources | None") -> bool:
    """Return whether sources are other than single tokens, and other than the default."""
    return sources is not None and not (isinstance(sources, str) and sources == "token")


def check_segments(sources: "Sources | None", articles: Sequence[Article]) -> None:
    """Raise ValueError for named segments as sources where an article names none."""
    for number, article in enumerate(articles if isinstance(sources, str) and sources == "segment" else ()):
        if not (article.parts.segments or article.is_empty()):
            raise ValueError(
                f"article {article.id or number} has no named segments, which sources by segment need: give rows "
                'with "segments", as decomp context has them, or take sentence, line or paragraph'
            )
