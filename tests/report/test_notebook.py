"""Results show themselves: in notebooks as a page in a frame, in terminals as text, as figures."""

import html
import re
import sys
from types import SimpleNamespace

import pytest

import decomp
from decomp.tables.columns import COLUMNS
from decomp.tables.table import Table
from tests.commands import MODEL
from tests.report.pages import HOSTILE, long_table, table_of


@pytest.fixture(scope="module")
def pair():
    return decomp.load_model(MODEL)


@pytest.fixture(scope="module")
def scored(pair):
    return decomp.score(["The old keeper said.", "He left."], pair, ("delta_lp", "attention"))


@pytest.fixture
def notebook(monkeypatch):
    """A notebook, as far as results see of it: what it is given to display."""
    displayed = []
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    display = SimpleNamespace(HTML=lambda content: content, display=displayed.append)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return displayed


def test_a_table_is_a_page_in_a_frame(scored):
    shown = scored._repr_html_()
    (content,) = re.findall(r'^<iframe srcdoc="([^"]*)" sandbox="allow-scripts allow-downloads"', shown)
    page = html.unescape(content)
    assert page.startswith("<!doctype html>")
    assert "<h2>article 0</h2>" in page
    assert "<h2>article 1</h2>" not in page


def test_hostile_tokens_stay_in_the_frame():
    shown = table_of(list(HOSTILE))._repr_html_()
    assert shown.count("<") == 2
    assert shown.count(">") == 2


def test_what_is_no_text_or_a_long_one_shows_its_line(scored):
    assert Table.from_rows(("a", "b"), [(1, 2)])._repr_html_() is None
    assert Table.from_rows(COLUMNS, [])._repr_html_() is None
    assert long_table(2002, 1, 1)._repr_html_() is None
    twice = [tuple(row) for row in scored]
    assert Table.from_rows(scored.columns, [*twice, *twice])._repr_html_() is None


def test_a_decomposition_shows_its_delta_lp(pair, monkeypatch, tmp_path, capsys):
    result = decomp.decompose("The old keeper said.", pair)
    assert "<h2>article 0</h2>" in html.unescape(result._repr_html_())
    result.show(target="last", top=2)
    strongest = result.delta_lp()[-1].abs().max().item()
    assert f"{strongest:.2f}" in capsys.readouterr().out
    (axes,) = result.plot("bars", target=2).axes
    assert "at 2: " in axes.get_title("left")
    result.save(tmp_path / "text.safetensors")
    assert decomp.load(tmp_path / "text.safetensors")._repr_html_() == result._repr_html_()
    ids = pair[1]("The old keeper.", return_tensors="pt").input_ids
    bare = pair[0].decompose(ids)
    assert bare._repr_html_() is None
    with pytest.raises(ValueError, match="the decomposition does not say its tokens and window"):
        bare.show()
    monkeypatch.setattr("decomp.report.notebook.MOST_PAIRS", 10)
    assert result._repr_html_() is None


def test_show_in_a_notebook(scored, notebook, capsys):
    scored.show()
    assert notebook == [scored._repr_html_()]
    assert capsys.readouterr().out == ""


def test_show_elsewhere(scored, monkeypatch, capsys):
    scored.show("attention")
    assert "rests on (attention, " in capsys.readouterr().out
    with pytest.raises(ValueError, match="lacks the columns article, window"):
        Table.from_rows(("a", "b"), [(1, 2)]).show()


def test_plots(scored):
    figure = scored.plot("heat", measure="attention", min_distance=2)
    assert figure.axes[-1].get_ylabel().startswith("attention")
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no picture of the kind 'pie': choose heat, arcs, bars or distance"):
        scored.plot("pie")
