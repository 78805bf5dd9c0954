"""The work behind a table: its items, the computation of their rows, and the table made of all rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from decomp.core.model import Model
    from decomp.tables.blocks import Block

T = TypeVar("T")


class WorkItem(NamedTuple):
    """The name of an item of work, and its predicted cost."""

    key: str
    """The item's name for people and for checks: `article 3, window 0`, or `items.csv, line 4`."""
    tokens: int
    targets: int
    """The number of predicted tokens; 0 for items whose work is not counted in these."""
    pairs: int
    cost: int
    """The cost in floating-point operations, or in a unit proportional to them."""


def window_key(article: int, number: int) -> str:
    """Return the name of a window."""
    return f"article {article}, window {number}"


def item_of(key: str, tokens: int) -> WorkItem:
    """Return an item whose cost is proportional to its tokens."""
    return WorkItem(key, tokens, 0, tokens, tokens)


class Summary(Protocol):
    """A function from the rows of all items to those of a table with other columns."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        ...

    def __call__(self, blocks: "Iterable[Block]") -> "Iterator[Block]":
        """Yield the rows of the table, from those of all items in order."""
        ...


@dataclass(frozen=True)
class Work(Generic[T]):
    """Items, the batches in which they are computed, and the way from their rows to a table."""

    what: str
    """The name of one item, in one word: window, item, fact, prompt."""
    items: Sequence[T]
    plan: Sequence[WorkItem]
    batches: Sequence[range]
    """The numbers of the items that are computed together; rows may depend on it in their last digits."""
    compute: "Callable[[Model, Sequence[T]], Block]"
    """The function that computes the rows of the items of a batch."""
    computed: tuple[str, ...]
    """The columns of the rows of items."""
    summary: Summary | None = None
    """The function that makes the table of all rows; None where these rows are the table."""
    unit_cost: int = 0
    """The most that is computed before a result is kept, in the units of `WorkItem.cost`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        return self.computed if self.summary is None else self.summary.columns

    def blocks(self, model: "Model", advance: Callable[[range], object] = lambda _: None) -> "Iterator[Block]":
        """Yield the rows of each batch; `advance` is called with the numbers of its items."""
        for batch in self.batches:
            yield self.compute(model, self.items[batch.start : batch.stop])
            advance(batch)

    def table(self, blocks: "Iterable[Block]") -> "Iterator[Block]":
        """Yield the rows of the table, from those of all items."""
        return iter(blocks) if self.summary is None else self.summary(blocks)
