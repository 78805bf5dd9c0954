"""Amounts of memory, as people write them."""

import re

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
DEFAULT_MEMORY = "1GiB"


def parse_bytes(amount: int | str) -> int:
    """Return the bytes of an amount of memory. ValueError if it is no positive amount.

    >>> parse_bytes("1.5KiB"), parse_bytes("800M") == 800 * 2**20
    (1536, True)
    """
    if isinstance(amount, int):
        count = amount
    else:
        match = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?)(?:i?B)?\s*", amount, re.IGNORECASE)
        try:
            count = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
        except ValueError:
            count = 0
    if count <= 0:
        raise ValueError(f"memory must be a positive amount such as 800MiB or 2GiB, not {amount!r}")
    return count


def format_bytes(count: int) -> str:
    """Return a count of bytes as a person writes it.

    >>> format_bytes(1536)
    '1.5 KiB'
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
