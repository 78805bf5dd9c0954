"""Pages from tables: what they hold, how exactly, how large they are, and what is refused."""

import base64
import hashlib
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

import decomp
from decomp.report.page.document import document
from decomp.report.page.opening import table_page
from decomp.report.page.packing import in_steps
from decomp.report.texts import texts_of
from decomp.tables.columns import COLUMNS
from decomp.tables.table import Table
from tests.commands import CORPUS, MODEL, refused
from tests.conftest import ROOT
from tests.report.pages import long_table

KINDS = {"int8": "i1", "int16": "<i2", "int32": "<i4", "float32": "<f4"}


def unpacked(html):
    """What the page's script unpacks, unpacked here: facts, and each text's arrays."""
    (data,) = re.findall(r'id="data">([A-Za-z0-9+/=]+)<', html)
    content = zlib.decompress(base64.b64decode(data))
    length = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + length])
    for text in about["texts"]:
        for name, (kind, offset, count) in text["arrays"].items():
            text["arrays"][name] = np.frombuffer(content, KINDS[kind], count, 8 + length + offset)
    return about


@pytest.fixture(scope="module")
def pair():
    return decomp.load_model(MODEL)


@pytest.fixture(scope="module")
def scored(pair):
    return decomp.score(Path(CORPUS), pair, ("delta_lp", "attention"), decomposition_length=5, extra=True, entropy=True)


def test_a_page_holds_the_table(scored):
    about = unpacked(document(table_page(scored, "golden")))
    assert [measure["name"] for measure in about["measures"]] == ["delta_lp", "attention"]
    assert (about["title"], about["about"]["model"]["model"]) == ("golden", "opt-tiny-pre")
    (text,) = about["texts"]
    arrays = text["arrays"]
    found = {}
    for target, place in enumerate(arrays["targets"]):
        for pair in range(arrays["starts"][target], arrays["starts"][target + 1]):
            source = arrays["positions"][place - arrays["back"][pair]]
            for n, measure in enumerate(("delta_lp", "attention")):
                score = arrays["scores"].reshape(2, -1)[n, pair] * arrays["sizes"].reshape(2, -1)[n, target]
                found[measure, arrays["positions"][place], source] = score
    expected = {(r.measure, r.position, r.source_position): r.score for r in scored if r.source_position is not None}
    assert found.keys() == expected.keys()
    most = max(map(abs, expected.values()))
    assert max(abs(found[key] - expected[key]) for key in expected) < most / 60_000
    first = {row.position: row for row in scored}
    np.testing.assert_array_equal(
        arrays["log2Prob"], np.float32([first[p].log2_prob for p in arrays["positions"][arrays["targets"]]])
    )
    bias = arrays["extra:<bias>"].reshape(2, -1)[0]
    assert list(bias) == [np.float32(r.score) for r in scored if (r.measure, r.source_token) == ("delta_lp", "<bias>")]


def test_steps_by_hand():
    scores = np.array([[4.0, -2.0, np.nan, 0.0, 0.0]])
    whole, sizes = in_steps(scores, np.array([0, 3, 5]), 127)
    assert whole.tolist() == [[127, -64, -128, 0, 0]]
    np.testing.assert_allclose(sizes, [[4 / 127, 0]], rtol=1e-6)


def test_size_of_a_long_text():
    page = document(table_page(long_table(2000, 50, 3), "long"))
    assert len(page.encode()) < 500_000


def test_the_policy_allows_this_page_s_own_script_and_style_alone(scored):
    page = document(table_page(scored, "golden"))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for name, tag in (("script", "<script>"), ("style", "<style>")):
        content = page.split(tag)[1].split(f"</{name}>")[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org)|<link|<img|src=", page)


def test_names_are_escaped(scored):
    page = document(table_page(scored, "</title><script>alert(1)</script>\u202e"))
    assert "<script>alert" not in page
    assert "&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;⟨U+202E⟩" in page


def test_without_scripts_the_three_strongest_of_each_word_are_shown(scored):
    page = document(table_page(scored, "golden"))
    plain = page.split("<noscript>")[1].split("</noscript>")[0]
    row = next(row for row in scored if row.position == 3)
    own = [r for r in scored if (r.position, r.measure) == (3, "delta_lp") and (r.source_position or -1) >= 0]
    strongest = max(own, key=lambda r: r.score)
    assert f" {-row.log2_prob:.1f}: {strongest.source_token.lstrip('Ġ')} {strongest.score:+.1f} " in plain


def test_windows_of_an_article_are_one_text(pair):
    table = decomp.score(Path(CORPUS), pair, stride=7, decomposition_length=4)
    (text,) = texts_of(table)
    assert len(text.targets) == len(np.unique(table["position"]))
    assert text.positions[0] == -1


def test_words(pair):
    table = decomp.score("The old keeper, he said.", pair, unit="word")
    (text,) = texts_of(table)
    assert list(text.pieces[1:]) == ["The", " old", " keeper,", " he", " said."]


def test_two_scores_of_one_source_are_refused(scored):
    rows = [tuple(row) for row in scored]
    twice = Table.from_rows(scored.columns, [*rows, rows[0]])
    with pytest.raises(ValueError, match="two scores of one source for a predicted token of article 0"):
        texts_of(twice)


def test_too_much_for_a_page_is_refused(monkeypatch, scored):
    monkeypatch.setattr("decomp.report.texts.MOST_PLACES", 10)
    with pytest.raises(
        ValueError, match=r"predicted tokens in 1 articles, of which 10 can be shown: choose some with --article"
    ):
        texts_of(scored)
    with pytest.raises(ValueError, match="has no rows"):
        texts_of(Table.from_rows(COLUMNS, []))


def test_reports_from_python(scored, pair, tmp_path):
    table = decomp.write_report(scored, tmp_path / "table.html", title="a table")
    assert unpacked(table.read_text())["title"] == "a table"
    result = decomp.decompose("The old keeper said.", pair)
    about = unpacked(decomp.write_report(result, str(tmp_path / "result.html")).read_text())
    assert about["texts"][0]["gap"] == pytest.approx(result.completeness_gap())
    text = unpacked(decomp.write_report("The old keeper said.", tmp_path / "text.html", model=pair).read_text())
    assert text["texts"][0]["pieces"] == about["texts"][0]["pieces"]
    assert text["texts"][0]["gap"] == pytest.approx(result.completeness_gap())
    (likely, *_) = text["texts"][0]["predictions"]
    assert len(likely) == 5
    assert [share for _, share in likely] == sorted((share for _, share in likely), reverse=True)


def test_reports_that_are_refused(scored, tmp_path):
    page = tmp_path / "page.html"
    with pytest.raises(ValueError, match=r"page\.pdf must end in \.html"):
        decomp.write_report(scored, tmp_path / "page.pdf")
    with pytest.raises(ValueError, match="measures are settings for a text"):
        decomp.write_report(scored, page, measures="attention")
    with pytest.raises(ValueError, match="expected a text, a table, a decomposition or a Path, not int"):
        decomp.write_report(3, page)
    page.write_text("mine")
    with pytest.raises(ValueError, match="exists: give --overwrite"):
        decomp.write_report(scored, page)
    assert page.read_text() == "mine"


def test_command_with_a_text(done):
    done("report", "--text", "The cat sat.", MODEL, "-o", "cat.html", "--measure", "attention", "-q")
    about = unpacked(Path("cat.html").read_text())
    assert "".join(about["texts"][0]["pieces"][1:]).strip() == "The cat sat."
    assert about["measures"][0]["name"] == "attention"


def test_command_with_tables_and_a_run(done):
    done("score", CORPUS, MODEL, "-o", "a.tsv", "--decomposition-length", 4, "-q")
    run = ("--run", "b.run", "--measure", "attention", "--decomposition-length", 4, "-q")
    done("score", CORPUS, MODEL, *run)
    done("report", "a.tsv", "b.run", "-o", "both.html")
    about = unpacked(Path("both.html").read_text())
    assert [measure["name"] for measure in about["measures"]] == ["delta_lp", "attention"]
    done("report", "a.tsv", "-o", "one.html", "--article", 0)


def test_command_with_stored_decompositions(done):
    done("decompose", CORPUS, MODEL, 5, "--output-dir", "stored", "-q")
    (path,) = Path("stored").glob("*_0.safetensors")
    done("report", path, "-o", "stored.html")
    (text,) = unpacked(Path("stored.html").read_text())["texts"]
    assert 0 < text["gap"] < 1e-3


def test_command_with_contrast_items(done):
    items = ROOT / "data" / "contrast.csv"
    done("contrast", items, "demo-gpt2", "-o", "c.tsv", "--limit", 3, "--measure", "delta_lp", "-q")
    done("report", "c.tsv", "--items", items, "-o", "c.html")
    texts = unpacked(Path("c.html").read_text())["texts"]
    assert len(texts) == 3
    item = decomp.api.read_items(items)[0]
    assert (texts[0]["facts"]["target"], texts[0]["facts"]["foil"]) == (item.target, item.foil)
    evidence = "".join(texts[0]["pieces"][place] for place in texts[0]["evidence"])
    assert evidence.strip() == item.evidence


def test_command_with_tables_of_layers_and_edges(done):
    facts = ROOT / "data" / "facts.jsonl"
    done("layers", facts, "demo-gpt2", "-o", "layers.tsv", "-q")
    Path("edges.csv").write_text("source,destination,input,score\na0.h1,m2,input,-0.5\ninput,logits,input,2\n")
    done("report", "layers.tsv", "edges.csv", "-o", "where.html")
    layers, edges = unpacked(Path("where.html").read_text())["tabs"]
    assert (layers["kind"], edges["kind"]) == ("layers", "edges")
    assert edges["rows"] == [["input", "logits", "input", 2.0], ["a0.h1", "m2", "input", -0.5]]
    assert len(layers["cells"]) > 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "missing argument: expected INPUTS, or --text TEXT MODEL"),
        (("--text", "a b"), "with --text give the model alone"),
        (("--text", "a b", MODEL, "--article", 1), "leave them out with --text"),
        (("none.tsv",), "can't read none.tsv"),
        (("other.csv",), "other.csv lacks the columns article, window"),
        (("a.tsv", "--article", 7), "there is no article 7 in a.tsv"),
        (("a.tsv", "--items", "items.csv"), "the items have no article 0"),
        (("a.tsv", "-o", "a.tsv"), "a.tsv must end in .html"),
    ],
)
def test_refused(run, scored, options, message):
    scored.save("a.tsv")
    Path("other.csv").write_text("a,b\n1,2\n")
    Path("items.csv").write_text("prompt,target,foil\nThe keys,are,is\n")
    assert message in refused(run("report", *options))
    assert not Path("report.html").exists()
