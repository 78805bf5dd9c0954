"""Grouping consecutive texts into batches that are computed together."""

from collections.abc import Sequence


def in_batches(lengths: Sequence[int], size: int | None, tokens: int) -> list[range]:
    """Return batches of consecutive texts, as ranges of their numbers.

    `lengths` are the texts' numbers of tokens. A batch has `size` texts; where `size` is None, as many as have
    `tokens` tokens together. Texts are not padded: short ones share matrix products at the memory of a long one.
    """
    if size is not None:
        return [range(i, min(i + size, len(lengths))) for i in range(0, len(lengths), size)]
    batches: list[range] = []
    room = 0
    for number, length in enumerate(lengths):
        if not batches or length > room:
            batches.append(range(number, number + 1))
            room = tokens - length
        else:
            batches[-1] = range(batches[-1].start, number + 1)
            room -= length
    return batches
