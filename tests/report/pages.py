"""Tables for pages: long ones, and ones of tokens that mean harm."""

from functools import cache

import numpy as np

from decomp.tables.columns import COLUMNS
from decomp.tables.table import Table

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    '" onmouseover="document.title=1',
    "\u202eevil\u2066",
    "\x1b[31m\x00\x07",
    "{{payload}}&lt;b&gt;",
    "\u2028',//",
    "שלום",
    "\ud83d",
)


@cache
def long_table(tokens, width, measures):
    """A table of random scores, most of them small, as those of models are."""
    random = np.random.default_rng(0)
    words = [f"Ġw{n}" for n in range(300)]
    text = [words[n] if n % 15 else "." for n in random.integers(0, 300, tokens)]
    rows = []
    for target in range(1, tokens):
        log2_prob = -float(random.exponential(6))
        sources = range(max(0, target - width), target)
        for measure in range(measures):
            scores = random.standard_t(2, len(sources)) * 0.1
            rows += [
                (0, 0, target, text[target], k, text[k], target - k, log2_prob, f"measure{measure}", float(score))
                for k, score in zip(sources, scores, strict=True)
            ]
    return Table.from_rows(COLUMNS, rows)


def table_of(tokens):
    """A table of made-up scores of every token before."""
    rows = [
        (
            0,
            0,
            target,
            tokens[target],
            k,
            tokens[k],
            target - k,
            -2.0 - target % 3,
            "delta_lp",
            (k - 1.5) / (target - k),
        )
        for target in range(1, len(tokens))
        for k in range(target)
    ]
    return Table.from_rows(COLUMNS, rows)
