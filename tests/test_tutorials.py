"""The tutorials run as they stand, and say what comes out."""

import re
import shlex

import pytest

from tests.conftest import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"


def blocks(name):
    """The code of a tutorial in order, with its language."""
    return re.findall(r"```(python|sh)\n(.*?)```", (TUTORIALS / name).read_text("utf-8"), re.DOTALL)


def test_reading_times(done, capsys):
    pytest.importorskip("statsmodels", reason="needs statsmodels")
    pytest.importorskip("wordfreq", reason="needs wordfreq")
    names: dict[str, object] = {}
    for language, code in blocks("reading-times.md"):
        if language == "python":
            exec(code, names)
            continue
        for line in code.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "decomp"
            done(*arguments)
    fit = names["fit"]
    for name, put_in in {"surprisal": 12, "surprisal_1": 6, "length": 8, "manhattan": 40}.items():
        assert abs(fit.params[name] - put_in) < 4 * fit.bse[name], name
        assert fit.bse[name] < put_in / 3, name
    assert fit.llf - names["without"].llf > 5
    assert names["by_distance"].iloc[0] > names["by_distance"].iloc[5]
    assert "delta log-likelihood" in capsys.readouterr().out
