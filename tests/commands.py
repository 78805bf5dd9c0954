"""What tests of commands share: a model, a corpus, and how to read what they print."""

import csv
import io

from tests.conftest import ROOT

MODEL = str(ROOT / "tests" / "golden" / "opt-tiny-pre")
CORPUS = str(ROOT / "tests" / "golden" / "golden.sentitems")


def refused(result):
    """The one line of a person's mistake."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def table(text, delimiter="\t"):
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
