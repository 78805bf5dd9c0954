"""Cutting an article's tokens into windows, which overlap and fit into the model's positions."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The tokens [start, stop) of an article, which fit into the model's positions, and which of them are predicted."""

    article: int
    """The number of the article in the corpus, from 0."""
    number: int
    """The window's number in its article, counted from 0."""
    start: int
    """The position in the article of the window's first token, the beginning of sequence aside."""
    stop: int
    """The position in the article after the window's last token."""
    first_scored: int
    """The position in the article of the first token predicted here; the windows before predict earlier tokens."""
    has_bos: bool
    """Whether the beginning-of-sequence token stands in front."""

    def position(self, index: int) -> int:
        """Return the position in the article of the window's token `index`; −1 for the beginning-of-sequence token."""
        return -1 if self.has_bos and index == 0 else self.start + index - self.has_bos

    @property
    def targets(self) -> range:
        """Return the indices into the window's tokens whose next token is predicted here."""
        return range(max(0, self.first_scored - self.start + self.has_bos - 1), len(self) - 1)

    def __len__(self) -> int:
        """Return the number of the window's tokens, the beginning-of-sequence token included."""
        return self.stop - self.start + self.has_bos

    def ids(self, article_ids: "Int[Tensor, ' A']", bos: int | None) -> "Int[Tensor, ' T']":
        """Return the token ids of the window from those of its article, the token `bos` first unless it is None."""
        ids = article_ids[self.start : self.stop]
        if bos is None:
            return ids
        import torch

        return torch.cat([ids.new_tensor([bos]), ids])


def cut_windows(
    article: int,
    length: int,
    positions: int,
    stride: int | None = None,
    has_bos: bool = True,
    *,
    ends: Sequence[int] | None = None,
    span: int = 1,
) -> Iterator[Window]:
    """Yield the windows of an article of `length` tokens, each of at most `positions` tokens.

    The beginning-of-sequence token counts where `has_bos`. Each window starts `stride` tokens after the one before
    (half of `positions` by default). Every token is predicted once, in the first window that holds it. With `ends`
    (the token after each unit, such as a word), windows end where a unit does; with `span`, a unit is predicted in the
    first window that holds it and the `span` − 1 units after it. ValueError for a stride that would skip tokens, and
    for a unit that fits into no window.

        >>> [(window.start, window.stop, window.first_scored) for window in cut_windows(0, length=10, positions=7)]
        [(0, 6, 0), (3, 9, 6), (6, 10, 9)]
    """
    capacity = positions - has_bos
    stride = max(1, positions // 2) if stride is None else stride
    ends = range(1, length + 1) if ends is None else ends
    if not 1 <= stride <= capacity:
        raise ValueError(f"the stride must be from 1 to {capacity} (the tokens of one window), not {stride}")
    start = number = scored = stop = 0
    while stop < length:
        units = bisect_right(ends, start + capacity)
        fitting = ends[units - span] if units >= span else 0
        if fitting <= scored and units < len(ends):
            latest = max(0, scored - (not has_bos))
            if start == latest:
                raise ValueError(
                    f"token {scored} of article {article} begins a word or span of more tokens than a window has "
                    f"({capacity}): take a shorter span, or single tokens"
                )
            start = latest
            continue
        stop = ends[units - 1]
        yield Window(article, number, start, stop, scored, has_bos)
        start, number, scored = min(start + stride, fitting - (not has_bos)), number + 1, fitting
