"""The long table: columns, order, numbers and strings that survive."""

import csv
import io
import json
import signal

import numpy as np
import pytest
import torch

from decomp.corpus.cutting import Window
from decomp.measures.result import Scores
from decomp.tables.blocks import rows_of
from decomp.tables.columns import COLUMNS, FORMATS, scores_block

TOKENS = ("</s>", "a\tb", 'say "so"', "new\nline")
RESULT = Scores(
    "delta_lp",
    range(1, 3),
    2,
    torch.tensor([-1.0, -2.0, -3.0]),
    torch.tensor([[9.0, 0, 0, 0], [0.1, 1 / 3, 0, 0], [9.0, -0.25, 1e-9, 0]]),
    {"<bias>": torch.tensor([0.0, 4.0, 5.0])},
)
WINDOW = Window(article=7, number=1, start=10, stop=13, first_scored=11, has_bos=True)
EXPECTED = [
    (7, 1, 11, 'say "so"', -1, "</s>", 2, -2.0, "delta_lp", 0.1),
    (7, 1, 11, 'say "so"', 10, "a\tb", 1, -2.0, "delta_lp", 0.33333334),
    (7, 1, 11, 'say "so"', None, "<bias>", None, -2.0, "delta_lp", 4.0),
    (7, 1, 12, "new\nline", 10, "a\tb", 2, -3.0, "delta_lp", -0.25),
    (7, 1, 12, "new\nline", 11, 'say "so"', 1, -3.0, "delta_lp", 1e-9),
    (7, 1, 12, "new\nline", None, "<bias>", None, -3.0, "delta_lp", 5.0),
]


def test_rows():
    assert list(rows_of(scores_block(RESULT, WINDOW, TOKENS))) == EXPECTED


def test_float32_survives():
    values = torch.rand(100)
    result = Scores("m", range(99, 100), 100, torch.zeros(100), values.expand(100, 100), {})
    block = scores_block(result, Window(0, 0, 0, 101, 0, False), ("x",) * 101)
    assert torch.equal(torch.tensor(block["score"]), values)
    assert torch.equal(torch.tensor([row[-1] for row in rows_of(block)]), values)


def make_rows_for_ever(block):
    """Make rows until a signal raises an error; AssertionError once it came and nothing was raised."""
    while signal.getitimer(signal.ITIMER_REAL)[0]:
        list(rows_of(block))
    raise AssertionError("the error that the signal raised is lost")


def test_no_signal_is_lost_while_numbers_are_made_into_rows():
    """Ctrl-C and SIGTERM raise an error wherever the command is; nothing that is called may forget it."""
    block = {"score": np.random.default_rng(0).standard_normal(20_000).astype(np.float32)}
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for milliseconds in range(1, 21):
            signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
            with pytest.raises(KeyboardInterrupt):
                make_rows_for_ever(block)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("name", "delimiter"), [("tsv", "\t"), ("csv", ",")])
def test_delimited(name, delimiter):
    file = io.StringIO(newline="")
    FORMATS[name](file)(EXPECTED)
    file.seek(0)
    header, *body = csv.reader(file, delimiter=delimiter)
    assert tuple(header) == COLUMNS
    assert body == [["" if value is None else str(value) for value in row] for row in EXPECTED]


def test_jsonl():
    file = io.StringIO()
    FORMATS["jsonl"](file)(EXPECTED)
    assert [tuple(json.loads(line).values()) for line in file.getvalue().splitlines()] == EXPECTED
    assert tuple(json.loads(file.getvalue().splitlines()[0])) == COLUMNS


@pytest.mark.parametrize("name", FORMATS)
def test_columns_in_front(name):
    file = io.StringIO(newline="")
    FORMATS[name](file, ("item", *COLUMNS))([(3, *row) for row in EXPECTED])
    lines = file.getvalue().splitlines()
    assert lines[0].startswith('{"item": 3, "article": 7' if name == "jsonl" else f"item{lines[0][4]}article")
    assert file.getvalue().count("delta_lp") == len(EXPECTED)
