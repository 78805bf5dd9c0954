"""Which texts are computed together."""

from collections.abc import Sequence


def in_batches(lengths: Sequence[int], size: int | None, tokens: int) -> list[range]:
    """Return batches of consecutive texts: `size` of them, or where it is None as many as fit into `tokens`.

    Nothing is padded, so short texts fill matrix products together and take no more memory than a long one.
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
