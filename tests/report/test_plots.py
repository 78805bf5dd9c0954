"""Pictures of tables: that they show the tables' numbers, with readable labels, and the same bytes each time."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import decomp
from decomp.report import plots
from decomp.report.plots import PlottedScores, save_picture
from decomp.report.plotting import PlotRequest, picture_of, picture_of_scores
from decomp.report.texts import texts_of
from decomp.tables.columns import COLUMNS
from decomp.tables.table import Table
from tests.commands import CORPUS, MODEL, refused
from tests.conftest import ROOT
from tests.report.pages import HOSTILE, table_of

pytest.importorskip("matplotlib", reason="needs matplotlib (extra plot)")


@pytest.fixture(scope="module")
def scored():
    return decomp.score(Path(CORPUS), MODEL, ("delta_lp", "attention"), decomposition_length=12, extra=True)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_heat_is_the_table_s_matrix(scored):
    axes, bar = picture_of_scores(scored, PlotRequest("heat", "attention")).axes
    (image,) = axes.images
    shown = np.ma.filled(image.get_array(), np.nan)
    assert_allclose(shown[:, :-1], scored.matrix(measure="attention"))
    assert np.isnan(shown[:, -1]).all()
    scores = scored.select(measure="attention")["score"]
    assert image.get_clim() == pytest.approx((-np.quantile(scores, 0.97), np.quantile(scores, 0.97)))
    assert labels(axes.yaxis)[:4] == ["I", "f", "you", "w"]
    assert bar.get_ylabel() == "attention, share of the attention"


def test_nearer_sources_and_the_beginning_are_left_out(scored):
    (axes, _) = picture_of_scores(scored, PlotRequest("heat", min_distance=3, hide_bos=True)).axes
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    expected = scored.matrix(measure="delta_lp")
    target, source = np.indices(expected.shape)
    expected[(target + 1 - source < 3) | (source == 0)] = np.nan
    assert_allclose(shown[:, :-1], expected)
    with pytest.raises(ValueError, match="no score of article 0 is left to draw: take a smaller --min-distance"):
        picture_of_scores(scored, PlotRequest("heat", min_distance=13))
    with pytest.raises(ValueError, match="no score of this token of article 0 is left to draw"):
        picture_of_scores(decomp.score("A cat.", MODEL), PlotRequest("bars", target=0, min_distance=2))


def test_bars_are_one_target_s_sources(scored):
    (axes,) = picture_of_scores(scored, PlotRequest("bars", target=20, top=4)).axes
    rows = [row for row in scored.select(position=20, measure="delta_lp") if row.source_position is not None]
    strongest = sorted(rows, key=lambda row: -abs(row.score))[:4]
    widths = [patch.get_width() for patch in axes.patches]
    assert widths[:4] == pytest.approx([row.score for row in strongest])
    names = labels(axes.yaxis)
    assert names[:4] == [f"{row.source_token.lstrip('Ġ')}  −{row.distance}" for row in strongest]
    assert names[4:] == ["<bias>", "<remainder>"]


def test_distances_are_means_with_intervals(scored):
    panels = picture_of_scores(scored, PlotRequest("distance")).axes
    assert len(panels) == 2
    (line,) = (line for line in panels[0].lines if len(line.get_xdata()) > 2)
    rows = scored.select(measure="delta_lp")
    kept = [row for row in rows if row.source_position is not None and row.source_position >= 0]
    for distance, mean in zip(line.get_xdata(), line.get_ydata(), strict=True):
        assert mean == pytest.approx(np.mean([row.score for row in kept if row.distance == distance]))
    seen = PlottedScores(texts_of(scored)[0], 0, "delta_lp")
    for _, mean, low, high in plots.decay_of([seen], 0):
        assert low < mean < high


def test_arcs_are_the_strongest_pairs():
    scores = table_of([f"Ġ{n}" for n in range(6)])
    (axes,) = picture_of_scores(scores, PlotRequest("arcs")).axes
    strongest = max(scores, key=lambda row: abs(row.score))
    widest = max(axes.patches, key=lambda arc: arc.get_linewidth())
    assert widest.width == strongest.distance
    assert len(axes.patches) == len(scores)
    long = table_of([f"Ġ{n}" for n in range(70)])
    with pytest.raises(ValueError, match="arcs are for up to 60 tokens, article 0 has 70: draw heat"):
        picture_of_scores(long, PlotRequest("arcs"))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_hostile_tokens_are_labels_and_bytes_are_the_same(tmp_path, suffix):
    table = table_of([*HOSTILE, "$x^{$", "Ġ<b>&"])
    paths = [tmp_path / f"{n}{suffix}" for n in range(2)]
    for path in paths:
        save_picture(picture_of_scores(table, PlotRequest("heat")), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_agreement():
    pairs = [("a", "b", "spearman", 0.5), ("a", "b", "kendall", 0.25), ("b", "c", "spearman", -1.0)]
    rows = [dict(zip(("measure", "other_measure", "metric", "mean"), pair, strict=True)) for pair in pairs]
    axes = plots.agreement(rows).axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    nan = np.nan
    np.testing.assert_array_equal(shown, [[nan, 0.25, nan], [0.5, nan, nan], [nan, -1, nan]])
    assert [text.get_text() for text in axes.texts] == ["0.25", "0.50", "-1.00"]


def test_neurons_are_counted(tmp_path):
    path = tmp_path / "neurons.csv"
    path.write_text("item,fact,level,layer,neuron,score\n0,x,,1,5,1\n0,x,,1,5,2\n0,x,,1,7,1\n1,y,,0,5,1\n")
    (axes,) = picture_of(path, None).axes
    assert [bar.get_height() for bar in axes.patches] == [0.5, 1.0]


def test_command(done, scored):
    scored.save("t.tsv")
    for kind in ("heat", "bars", "distance"):
        done("plot", "t.tsv", "--kind", kind, "-o", f"{kind}.png", "--article", 0)
        assert Path(f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    done("layers", ROOT / "data" / "facts.jsonl", "demo-gpt2", "-o", "layers.tsv", "-q")
    done("layers", ROOT / "data" / "facts.jsonl", "demo-gpt2", "--aggregate", "-o", "means.tsv", "-q")
    for name in ("layers", "means"):
        done("plot", f"{name}.tsv", "-o", f"{name}.svg")
    shown = [Path(f"{name}.svg").read_text().replace("contrast_logit", "score") for name in ("layers", "means")]
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("t.tsv", "-o", "t.gif"), "t.gif must be a picture, .png, .svg or .pdf"),
        (("t.tsv", "-o", "t.png", "--kind", "layers"), "t.tsv makes no picture of the kind layers: choose heat, arcs"),
        (("t.tsv", "-o", "t.png", "--measure", "x"), "no measure 'x': choose one of delta_lp, attention"),
        (("t.tsv", "-o", "t.png", "--kind", "bars", "--target", 999), "no predicted token at 999"),
        (("none.tsv", "-o", "t.png"), "can't read none.tsv"),
        (("e.tsv", "-o", "t.png"), "the table has no rows"),
    ],
)
def test_refused(run, scored, options, message):
    scored.save("t.tsv")
    Table.from_rows(COLUMNS, []).save("e.tsv")
    assert message in refused(run("plot", *options))
    assert not Path("t.png").exists()
