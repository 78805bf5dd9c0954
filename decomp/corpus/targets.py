"""Choosing the predictions that are scored: one token, the last one, a span predicted together, or all tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decomp.corpus.windows import TokenisedWindow

LAST, ALL = "last", "all"


@dataclass(frozen=True)
class Target:
    """One or more consecutive tokens of an article, whose prediction is scored as one."""

    first: int | None
    """The position of the first of them in the article; None for the article's last token."""
    count: int = 1
    """The number of tokens."""

    def __str__(self) -> str:
        """Return the target as --target takes it: `last`, a position, or a span of positions such as 10:14."""
        if self.first is None:
            return LAST
        return str(self.first) if self.count == 1 else f"{self.first}:{self.first + self.count}"

    def span(self, length: int) -> range:
        """Return the positions of the target in an article of `length` tokens."""
        first = length - 1 if self.first is None else self.first
        return range(first, first + self.count)


def parse_target(given: object) -> Target | None:
    """Return the target named by `last`, a position, or a span such as 10:14 (positions 10 to 13); None for `all`.

    ValueError for anything else.

        >>> parse_target("10:14").span(length=100)
        range(10, 14)
    """
    text = str(given)
    if text in (LAST, ALL):
        return Target(None) if text == LAST else None
    first, colon, stop = text.partition(":")
    whole = all(number.isascii() and number.isdecimal() for number in ((first, stop) if colon else (first,)))
    if not whole or (colon and int(first) >= int(stop)):
        raise ValueError(
            f"expected a position in the article, from 0, a span of positions such as 10:14, last, or all, not {text!r}"
        )
    return Target(int(first), int(stop) - int(first) if colon else 1)


def target_names(given: object) -> list[str]:
    """Return the names of the targets, such as `last` or `10:14`, given as one value or a list of values."""
    return [ALL if target is None else str(target) for target in parse_targets(given)]


def parse_targets(given: object) -> list[Target | None]:
    """Return the targets named by one value or a list of values; None stands for all tokens.

    ValueError for a malformed one, and for one that is named twice.
    """
    several = given if isinstance(given, list | tuple) else [given]
    targets = [parse_target(each) for each in several]
    if twice := [target for number, target in enumerate(targets) if target in targets[:number]]:
        raise ValueError(f"the target {twice[0] or ALL} is asked for more than once: name every target once")
    return targets


def only_targets(windows: "Sequence[TokenisedWindow]", targets: Sequence[Target | None]) -> "list[TokenisedWindow]":
    """Return, article by article, one window for each target, which ends with the target and predicts nothing else.

    The target None stands for all tokens: it gives the windows as they are. ValueError for a target that no article
    has, and for two that are the same token of an article (`last` and its position).
    """
    by_article: dict[int, list[TokenisedWindow]] = {}
    for window in windows:
        by_article.setdefault(window.window.article, []).append(window)
    chosen: list[TokenisedWindow] = []
    found: set[Target | None] = set()
    for own in by_article.values():
        for target in targets:
            cut = own if target is None else with_target(own, target)
            found |= {target} if cut else set()
            refuse_twice(chosen, cut)
            chosen += cut
    for target in targets:
        if target is not None and target not in found:
            raise ValueError(missing(target, windows))
    return chosen


def with_target(windows: "Sequence[TokenisedWindow]", target: Target) -> "list[TokenisedWindow]":
    """Return the window of an article that predicts a target from the most context, cut after the target.

    An empty list where no window predicts it.
    """
    wanted = target.span(windows[-1].window.stop)
    for tokenised in windows:
        window = tokenised.window
        cut = replace(window, first_scored=wanted.start, stop=wanted.stop)
        holds = wanted.start >= window.start and wanted.stop <= window.stop
        if holds and wanted.stop > window.first_scored and len(cut.targets) == len(wanted):
            return [replace(tokenised.cut(cut), span=len(wanted))]
    return []


def refuse_twice(chosen: "Sequence[TokenisedWindow]", more: "Sequence[TokenisedWindow]") -> None:
    """Raise ValueError where a window of `more` predicts the same tokens together as one of `chosen`."""
    before = {(w.window.article, p, w.span) for w in chosen for p in predicted(w)}
    for window in more:
        for position in predicted(window):
            if (window.window.article, position, window.span) in before:
                raise ValueError(
                    f"two targets are the token at {position} of article {window.window.article}: name it once"
                )


def predicted(window: "TokenisedWindow") -> range:
    """Return the positions in the article of the tokens that a window predicts, of a span its first token."""
    targets = window.window.targets
    positions = range(window.window.position(targets.start + 1), window.window.position(targets.stop - 1) + 2)
    return positions[: len(positions) - window.span + 1]


def missing(target: Target | None, windows: "Sequence[TokenisedWindow]") -> str:
    """Return the message of the error for a target that no article has."""
    longest = max((window.window.stop for window in windows), default=0)
    what = "a predicted token" if target is None or target.count == 1 else "the predicted tokens"
    if target is not None and target.count > 1 and target.first is not None and target.first + target.count <= longest:
        return f"no window holds the tokens {target} with a token before them: take a shorter span"
    return f"no article has {what} at {target}: the longest has {longest} tokens"
