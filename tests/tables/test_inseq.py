"""Tables as inseq's JSON and back; a file that inseq 0.7.1 itself wrote is read."""

import base64
import gzip
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load, save

import decomp
from decomp.tables.columns import COLUMNS
from decomp.tables.table import Table
from tests.commands import MODEL
from tests.conftest import ROOT

WRITTEN_BY_INSEQ = ROOT / "tests" / "golden" / "inseq-0.7.1.json"
"""Of A, Ġcat, Ġsat; the last two predicted."""


@pytest.fixture(scope="module")
def scored():
    texts = ["The old keeper said.", "He left."]
    return decomp.score(texts, MODEL, ("delta_lp", "attention"), decomposition_length=3, extra=True)


def test_a_file_of_inseq_s():
    table = decomp.load_inseq(WRITTEN_BY_INSEQ)
    assert [tuple(row) for row in table] == [
        (0, 0, 1, "Ġcat", 0, "A", 1, -2.0, "saliency", 0.5),
        (0, 0, 2, "Ġsat", 0, "A", 2, -1.0, "saliency", 0.25),
        (0, 0, 2, "Ġsat", 1, "Ġcat", 1, -1.0, "saliency", -1.5),
    ]
    assert table.about["model"]["model"] == "gpt2"


def test_there_and_back(scored, tmp_path):
    path = tmp_path / "scores.json"
    decomp.write_inseq(scored, path, "delta_lp")
    back = decomp.load_inseq(path)
    rows = scored.select(measure="delta_lp")
    kept = ~np.ma.getmaskarray(rows["source_position"])
    for name in COLUMNS:
        expected, found = np.ma.filled(rows[name])[kept], np.ma.filled(back[name])
        (assert_allclose if name in ("score", "log2_prob") else assert_array_equal)(found, expected)
    (tmp_path / "scores.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert len(decomp.load_inseq(tmp_path / "scores.json.gz")) == len(back)


def test_what_inseq_expects(scored, tmp_path):
    decomp.write_inseq(scored, tmp_path / "scores.json", "delta_lp")
    ours, theirs = (json.loads(p.read_text()) for p in (tmp_path / "scores.json", WRITTEN_BY_INSEQ))
    assert ours["__instance_type__"] == theirs["__instance_type__"]
    first, known = (file["attributes"]["sequence_attributions"][0] for file in (ours, theirs))
    assert first["__instance_type__"] == known["__instance_type__"]
    assert first["attributes"].keys() == known["attributes"].keys()
    assert first["attributes"]["target"][0].keys() == known["attributes"]["target"][0].keys()
    scores = load(base64.b64decode(first["attributes"]["target_attributions"]))["attribution"]
    expected = scored.matrix(measure="delta_lp").T
    assert_allclose(scores[:-1], expected, rtol=1e-6)
    assert np.isnan(scores[-1]).all()
    probability = load(base64.b64decode(first["attributes"]["step_scores"]["probability"]))["attribution"]
    each = {row.position: row.log2_prob for row in scored.select(article=0)}
    assert_allclose(probability, [2 ** each[position] for position in sorted(each)], rtol=1e-5)


def test_tables_that_are_refused(scored, tmp_path):
    path = tmp_path / "scores.json"
    with pytest.raises(ValueError, match="the table has 2 measures: choose one of delta_lp, attention"):
        decomp.write_inseq(scored, path)
    with pytest.raises(ValueError, match="the table has no measure 'x'"):
        decomp.write_inseq(scored, path, "x")
    rows = [(0, 0, at, f"t{at}", at - 1, f"t{at - 1}", 1, -1.0, "m", 1.0) for at in (1, 3)]
    with pytest.raises(ValueError, match="article 0 has gaps between its predicted tokens"):
        decomp.write_inseq(Table.from_rows(COLUMNS, rows), path)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(ValueError, match="exists: give --overwrite"):
        decomp.write_inseq(scored, path, "attention")


def changed(**attributes):
    """The file of inseq's with other attributes of its sequence."""
    content = json.loads(WRITTEN_BY_INSEQ.read_text())
    content["attributes"]["sequence_attributions"][0]["attributes"].update(attributes)
    return json.dumps(content)


def array(*values):
    return base64.b64encode(save({"attribution": np.array(values, np.float32)})).decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON: expected a file that inseq wrote"),
        ("[1]", "holds no FeatureAttributionOutput of inseq: save it there with use_primitives=False"),
        (changed(source_attributions="x"), "is of an encoder-decoder model"),
        (changed(target_attributions="x"), "its scores can't be read"),
        (
            changed(target_attributions=array([[1.0]])),
            r"has scores of shape \(1, 1, 1\), expected \(3, 2\), .*aggr",
        ),
        (changed(step_scores=None), r"has no probabilities: attribute with step_scores=\['probability'\]"),
        (changed(step_scores={"probability": array(0.0, 1.0)}), "has probabilities that are not above 0"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        decomp.load_inseq(path)
    with pytest.raises(ValueError, match=r"can't read .*none\.json: No such file"):
        decomp.load_inseq(tmp_path / "none.json")
