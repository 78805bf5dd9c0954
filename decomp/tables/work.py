"""What a table is computed from: items of work, the rows that come of each, and what becomes of the rows of all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from decomp.core.model import Model
    from decomp.tables.blocks import Block

T = TypeVar("T")


class WorkItem(NamedTuple):
    """What an item of work is called, and what it is predicted to cost."""

    key: str
    """For people and for checks: `article 3, window 0`, or `items.csv, line 4`."""
    tokens: int
    targets: int
    """Tokens that are predicted; 0 where that is no measure of what is done."""
    pairs: int
    cost: int
    """Floating-point operations, or what is proportional to them."""


def window_key(article: int, number: int) -> str:
    """Return what a window is called."""
    return f"article {article}, window {number}"


def item_of(key: str, tokens: int) -> WorkItem:
    """Return an item whose cost goes with its tokens."""
    return WorkItem(key, tokens, 0, tokens, tokens)


class Summary(Protocol):
    """What becomes of the rows of all items, where the table has others."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        ...

    def __call__(self, blocks: "Iterable[Block]") -> "Iterator[Block]":
        """Yield the table's rows from those of all items, in order."""
        ...


@dataclass(frozen=True)
class Work(Generic[T]):
    """Items, which of them are computed together, and how they become a table."""

    what: str
    """What an item is, in one word: window, item, fact, prompt."""
    items: Sequence[T]
    plan: Sequence[WorkItem]
    batches: Sequence[range]
    """Numbers of the items that are computed together; rows may depend on it in their last digits."""
    compute: "Callable[[Model, Sequence[T]], Block]"
    """From the items of a batch to their rows."""
    computed: tuple[str, ...]
    """Columns of these rows."""
    summary: Summary | None = None
    """None where the rows of the items are those of the table."""
    unit_cost: int = 0
    """Most that is computed before it is kept."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        return self.computed if self.summary is None else self.summary.columns

    def blocks(self, model: "Model", advance: Callable[[range], object] = lambda _: None) -> "Iterator[Block]":
        """Yield the rows of one batch after the other; `advance` is called with the numbers of its items."""
        for batch in self.batches:
            yield self.compute(model, self.items[batch.start : batch.stop])
            advance(batch)

    def table(self, blocks: "Iterable[Block]") -> "Iterator[Block]":
        """Yield the table's rows from those of all items."""
        return iter(blocks) if self.summary is None else self.summary(blocks)
