"""Tables in a terminal: what is ranked, what is coloured, and when nothing is."""

import re
from pathlib import Path

import click
import numpy as np
import pytest

import decomp
from decomp.report.terminal import PLUS, running, shown, tinted
from decomp.report.texts import texts_of
from decomp.tables.columns import COLUMNS
from decomp.tables.table import Table
from tests.commands import CORPUS, MODEL, refused, table
from tests.report.pages import HOSTILE, table_of


@pytest.fixture(scope="module")
def scored():
    return decomp.score(Path(CORPUS), MODEL, ("delta_lp", "attention"), decomposition_length=12, extra=True)


def plain(text):
    return click.unstyle(text)


def test_a_target_s_sources_are_ranked(scored):
    lines = plain(shown(scored, target=20, top=3)).splitlines()
    rows = [r for r in scored.select(position=20, measure="delta_lp") if r.source_position is not None]
    strongest = sorted(rows, key=lambda row: -abs(row.score))[:3]
    start = next(n for n, line in enumerate(lines) if line.endswith("back  source"))
    found = [line.split() for line in lines[start + 1 : start + 4]]
    assert [float(score) for score, *_ in found] == pytest.approx([row.score for row in strongest], abs=0.005)
    assert [int(back) for _, back, *_ in found] == [row.distance for row in strongest]
    assert [line.split()[-1] for line in lines[start + 4 :]] == ["<bias>", "<remainder>"]
    assert f"({-rows[0].log2_prob:.2f} bits)" in lines[start - 1]


def test_a_measure_is_chosen(scored):
    assert "attention" in plain(shown(scored, "attention", "last"))
    with pytest.raises(ValueError, match="no measure 'occlusion': choose one of delta_lp, attention"):
        shown(scored, "occlusion")
    with pytest.raises(ValueError, match="article 0 has no predicted token at 999: they are at 0 to "):
        shown(scored, target=999)


def test_the_excerpt_is_of_distant_sources():
    rows = []
    for target in range(1, 60):
        for k in range(max(0, target - 20), target):
            score = 5.0 if (target, k) == (40, 25) else 0.25 if target - k == 1 else 0.0
            rows.append((0, 0, target, f"Ġt{target}", k, f"Ġt{k}", target - k, -2.0, "delta_lp", score))
    found = shown(Table.from_rows(COLUMNS, rows)).splitlines()
    lines = found[found.index("") + 1 :]
    assert lines[0].startswith("article  position  token")
    assert len(lines) == 13
    assert "     0        40  _t40           -2.00   _t25 +5.00 (15)   _t39 +0.25 (1)" in "\n".join(lines)


def test_running_text_is_broken_at_spaces(scored):
    (text,) = texts_of(scored)
    lines = list(running(text, lambda place, piece: piece, 30))
    assert max(map(len, lines)) <= 30
    assert " ".join(lines).split() == "".join([text.pieces[0], " ", *text.pieces[1:]]).split()


def test_colours():
    assert tinted("x", PLUS, 0.05) == "x"
    assert tinted("x", PLUS, 0.9) == tinted("x", PLUS, 7.0) == "\x1b[38;5;16m\x1b[48;5;208mx\x1b[0m"


def test_tokens_control_no_terminal():
    for target in (None, len(HOSTILE) - 1):
        text = shown(table_of(list(HOSTILE)), target=target)
        assert not re.search("[\x00-\x08\x0b-\x1a\x1c-\x1f\u2028\u202e]", text)
        assert set(re.findall("\x1b.{0,5}", text)) <= set(
            re.findall("\x1b.{0,5}", re.sub("\x1b(?!\\[[0-9;]*m)", "", text))
        )
        assert "⟨U+001B⟩[31m" in text


def test_command(done, scored):
    scored.save("t.tsv")
    assert done("show", "t.tsv", "--target", 9, "--top", 2) == plain(shown(scored, target=9, top=2)) + "\n"
    assert "attention" in done("show", "t.tsv", "--measure", "attention", "--article", 0)
    done("decompose", CORPUS, MODEL, 5, "--output-dir", "stored", "-q")
    (stored,) = Path("stored").glob("*_0.safetensors")
    assert "ΔLP in bits" in done("show", stored)


def test_refused(run):
    assert "can't read none.tsv" in refused(run("show", "none.tsv"))
    Path("other.csv").write_text("a,b\n1,2\n")
    assert "other.csv lacks the columns" in refused(run("show", "other.csv"))


def test_a_text_is_shown_on_a_terminal_and_a_table_elsewhere(done, monkeypatch):
    asked = ("score", "--text", "The cat sat.", MODEL, "-q")
    assert np.isfinite([float(row["score"]) for row in table(done(*asked))]).all()
    monkeypatch.setattr("decomp.cli.scoring.on_terminal", lambda: True)
    printed = []
    monkeypatch.setattr(click, "echo", lambda text="", **options: printed.append((text, options.get("color"))))
    done(*asked)
    done(*asked, "--target", "last")
    monkeypatch.setenv("NO_COLOR", "1")
    done(*asked)
    done(*asked, "--sources", "sentence", "--target", "last")
    (every, last, plain_one, sentence) = printed
    assert "The cat sat" in sentence[0].split("back  source")[1]
    assert "rests on (ΔLP in bits" in every[0]
    assert "back  source" in last[0]
    assert every[1] is None  # click then looks whether the output is a terminal
    assert plain_one == (every[0], False)
    assert "log2_prob\tmeasure" in done(*asked, "--format", "tsv")
