"""How far commands are, and what they wrote."""

import io
import re

import pytest

from decomp.cli import progress as module
from decomp.cli.progress import progress
from tests.commands import CORPUS, MODEL

TOOK = r", \d+\.\d s$"


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(module, "clock", lambda: Clock.now)
    return Clock


def worked(clock, quiet=False):
    """Four windows of 100 tokens, 20 seconds each; the last one costs as much as the others together."""
    with progress("window", 4, 6, quiet) as shown:
        for cost in (1, 1, 1, 3):
            clock.now += 20
            shown.advance(cost, 100)


def test_lines_of_a_log_where_stderr_is_no_terminal(clock, capsys):
    worked(clock)
    assert capsys.readouterr().err.splitlines() == [
        "2/4 windows, 200 tokens, 5 tokens/s, 1:20 left",
        "4/4 windows, 400 tokens, 5 tokens/s, 0:00 left",
    ]
    worked(clock, quiet=True)
    assert capsys.readouterr().err == ""


def test_what_predicts_no_tokens_has_a_rate_of_its_own(clock, capsys):
    with progress("fact", 2, 2, quiet=False) as shown:
        clock.now += 60
        shown.advance()
    assert capsys.readouterr().err == "1/2 facts, 0.0167 facts/s, 1:00 left\n"


def test_tokens_per_second_in_the_bar_of_a_terminal(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(module, "BAR_DELAY", 0)
    worked(clock)
    assert re.search(r"100%\|.*\| .*left, 4/4 windows, 400 tokens, 5 tokens/s", terminal.getvalue())


def last_line(result):
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()[-1]


def test_commands_that_write_end_with_what_they_wrote(run, tmp_path):
    assert re.search(rf"^wrote t\.tsv, 1,275 rows{TOOK}", last_line(run("score", CORPUS, MODEL, "-o", "t.tsv")))
    assert re.search(rf"^wrote t\.csv, 50 rows{TOOK}", last_line(run("table", "t.tsv", "--summary", "-o", "t.csv")))
    assert re.search(rf"^wrote t\.png{TOOK}", last_line(run("plot", "t.tsv", "-o", "t.png")))
    assert re.search(rf"^wrote t\.html, \d+ kB{TOOK}", last_line(run("report", "t.tsv", "-o", "t.html")))
    result = run("score", CORPUS, MODEL, "--run", "run", "-o", "r.parquet")
    assert re.search(rf"^wrote r\.parquet, 1,275 rows{TOOK}", last_line(result))
    assert re.search(rf"^wrote output, 1 window{TOOK}", last_line(run("decompose", CORPUS, MODEL, 8)))
    stored = ("deltalp", "golden_opt-tiny-pre", MODEL)
    assert re.search(rf"^wrote d\.tsv, 372 rows{TOOK}", last_line(run(*stored, "-o", "d.tsv")))
    assert re.search(rf"^wrote d\.txt, 573 lines{TOOK}", last_line(run(*stored, "-o", "d.txt")))
    items = ("contrast", "demo-contrast.csv", "demo-opt", "--measure", "delta_lp", "--limit", 1)
    assert re.search(rf"^wrote c\.tsv, 10 rows{TOOK}", last_line(run(*items, "-o", "c.tsv")))


@pytest.mark.parametrize(
    "command",
    [
        ("score", CORPUS, MODEL, "-o", "t.tsv"),
        ("decompose", CORPUS, MODEL, 8),
        ("score", CORPUS, MODEL),
    ],
)
def test_nothing_is_said_of_what_was_written_to_standard_output_or_with_quiet(run, command):
    quiet = () if "-o" not in command and command[0] == "score" else ("--quiet",)
    assert run(*command, *quiet).stderr == ""
