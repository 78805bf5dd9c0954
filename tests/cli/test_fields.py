"""Columns of inputs that are called otherwise: --field NAME=COLUMN, in all commands that read items."""

import csv
import io
import json
from pathlib import Path

import pytest

import decomp
from tests.commands import MODEL, refused

ITEMS = [{"prompt": "The cats", "target": "sleep", "foil": "slept", "evidence": "cats"}]
FACTS = [{"relation": "The {} can", "subject": "cat", "target_true": "run", "target_false": "sleep"}]
PROMPTS = [{"clean": "The cats", "corrupt": "The dogs", "answers": [" a"], "wrong_answers": [" the"]}]
WORDS = [{"article": 0, "word": "The"}, {"article": 0, "word": "cats"}, {"article": 0, "word": "sleep."}]
DELTA_LP = ("--measure", "delta_lp")
COMMANDS = {
    "contrast": (("contrast", "in.csv", MODEL, *DELTA_LP), ITEMS),
    "alignment": (("evaluate", "alignment", "in.csv", MODEL, *DELTA_LP), ITEMS),
    "layers": (("layers", "in.csv", MODEL, "--measure", "direct"), FACTS),
    "neurons": (("neurons", "in.csv", MODEL, "--steps", 2, "--counts"), FACTS),
    "edges": (("edges", "in.csv", MODEL, "--mask-value", 0.5), PROMPTS),
    "score": (("score", "text.txt", MODEL, "--words", "in.csv", "--unit", "word"), WORDS),
}


def write(rows, name=""):
    Path("text.txt").write_text("The cats sleep.", "utf-8")
    if name == "edges":
        Path("in.csv").write_text(json.dumps({"prompts": rows}), "utf-8")
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    Path("in.csv").write_text(text.getvalue(), "utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_columns_of_other_names(run, done, name):
    command, rows = COMMANDS[name]
    write(rows, name)
    expected = done(*command)
    own = dict(zip(rows[0], ("spalte", "second column", "c", "d"), strict=False))
    write([{own[key]: value for key, value in row.items()} for row in rows], name)
    fields = [word for ours, theirs in own.items() for word in ("--field", f"{ours}={theirs}")]
    assert done(*command, *fields) == expected
    first = next(iter(own))
    line = refused(run(*command, *fields, "--field", f"{first}=nothing"))
    assert f"has no column 'nothing' to be taken as {first}: it has spalte, second column" in line


def test_what_names_nothing_is_refused(run):
    write(ITEMS)
    assert "expected NAME=COLUMN, such as prompt=sentence, not 'prompt'" in refused(
        run(*COMMANDS["contrast"][0], "--field", "prompt")
    )
    with pytest.raises(ValueError, match=r"--field \(fields=\) names columns of a table of items"):
        decomp.contrast("The cats", "sleep", "slept", MODEL, fields={"prompt": "sentence"})
    with pytest.raises(ValueError, match=r"--field \(fields=\) names columns of the list of words: give --words"):
        decomp.score("A cat.", MODEL, fields={"word": "token"})


def test_in_python(run):
    write([{"sentence": "The cats", "target": "sleep", "foil": "slept"}])
    found = decomp.contrast(Path("in.csv"), model=MODEL, measures="delta_lp", fields={"prompt": "sentence"})
    assert {*found["foil"]} == {"pt"}
