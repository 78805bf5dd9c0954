"""The tutorials run as they stand, and say what comes out."""

import re
import shlex

import pytest

from tests.conftest import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"


def blocks(name):
    """The code of a tutorial in order, with its language."""
    return re.findall(r"```(python|sh)\n(.*?)```", (TUTORIALS / name).read_text("utf-8"), re.DOTALL)


def shown(name):
    """The lines of a tutorial's blocks of output."""
    return [line for block in re.findall(r"```\n(.*?)```", unlabelled(name), re.DOTALL) for line in block.splitlines()]


def unlabelled(name):
    """A tutorial without its blocks of code."""
    return re.sub(r"```\w+\n.*?```", "", (TUTORIALS / name).read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture
def worked(done):
    """Runs a tutorial, and gives the names that its Python leaves."""

    def worked(name):
        names: dict[str, object] = {}
        for language, code in blocks(name):
            if language == "python":
                exec(code, names)
                continue
            for line in code.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "decomp"
                done(*arguments)
        return names

    return worked


def test_reading_times(worked, capsys):
    pytest.importorskip("statsmodels", reason="needs statsmodels")
    pytest.importorskip("wordfreq", reason="needs wordfreq")
    names = worked("reading-times.md")
    fit = names["fit"]
    for name, put_in in {"surprisal": 12, "surprisal_1": 6, "length": 8, "manhattan": 40}.items():
        assert abs(fit.params[name] - put_in) < 4 * fit.bse[name], name
        assert fit.bse[name] < put_in / 3, name
    assert fit.llf - names["without"].llf > 5
    assert names["by_distance"].iloc[0] > names["by_distance"].iloc[5]
    assert "delta log-likelihood" in capsys.readouterr().out


def test_slide(worked, capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    worked("slide.md")
    out = capsys.readouterr().out
    assert len(shown("slide.md")) == 7
    assert [line for line in shown("slide.md") if line not in out] == []
    assert all((tmp_path / f"slide{end}").exists() for end in (".png", ".html", ".svg", "-from-table.html"))


def test_why_this_word(worked, capsys, tmp_path):
    pytest.importorskip("pandas", reason="needs pandas")
    names = worked("why-this-word.md")
    out = capsys.readouterr().out
    assert len(shown("why-this-word.md")) == 6
    assert [line for line in shown("why-this-word.md") if line not in out] == []
    ranks = names["together"]["mean"]
    assert ranks["delta_lp:contrast_log2_prob"] == pytest.approx(0.83, abs=0.005)
    assert ranks["<random>"] == pytest.approx(0.47, abs=0.005)
    assert (tmp_path / "pairs.html").exists()


def test_what_an_answer_rests_on(worked, capsys):
    names = worked("what-an-answer-rests-on.md")
    out = capsys.readouterr().out
    assert len(shown("what-an-answer-rests-on.md")) > 6
    assert [line for line in shown("what-an-answer-rests-on.md") if line not in out] == []
    assert names["best"].source_token.startswith("The old lady")
