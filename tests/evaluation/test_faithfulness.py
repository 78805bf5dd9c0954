"""Faithfulness by hand and by loops, and its command as a person uses it."""

import re

import pytest
import torch
from torch.testing import assert_close

import decomp
from decomp.corpus.cutting import Window
from decomp.corpus.text_spans import TextSpan
from decomp.corpus.windows import TokenisedWindow
from decomp.evaluation.curves import aopc, by_bin, perturbation_curves, rank_sources, removals, top_sizes
from decomp.evaluation.faithfulness import only_targets
from decomp.measures.functions import FUNCTIONS
from tests.commands import CORPUS, MODEL, refused, table
from tests.variants import make_pair, random_ids


def test_ranking_and_removals_by_hand():
    ranking = rank_sources(torch.tensor([0.5, -3.0, 2.0, 0.5]))
    assert ranking.tolist() == [2, 0, 3, 1]
    masks = removals(ranking, [1, 3])
    assert masks["comprehensiveness"].long().tolist() == [[0, 0, 1, 0], [1, 0, 1, 1]]
    assert masks["sufficiency"].long().tolist() == [[1, 1, 0, 1], [0, 1, 0, 0]]


def test_sizes_of_the_bins():
    assert top_sizes(100) == [1, 5, 10, 20, 50]
    assert top_sizes(300) == [3, 15, 30, 60, 150]
    assert top_sizes(2) == [1, 1, 1, 1, 1]
    assert top_sizes(7) == [1, 1, 1, 2, 4]
    assert top_sizes(3, (0.9,)) == [2]


def test_aopc_by_hand():
    curve = torch.tensor([[1.0, 2.0, 3.0, 4.0, 10.0], [0.0, 0.0, 0.0, 0.0, -1.0]])
    assert_close(aopc(curve), torch.tensor([4.0, -0.2]))
    named = by_bin(curve)
    assert list(named) == ["0.01", "0.05", "0.1", "0.2", "0.5", "aopc"]
    assert_close(named["0.2"], torch.tensor([4.0, 0.0]))
    assert_close(named["aopc"], torch.tensor([4.0, -0.2]))


@pytest.mark.parametrize("function", ["log2_prob", "prob"])
@pytest.mark.parametrize("replacement", ["mask", 5])
def test_curves_by_a_loop(replacement, function):
    plain, model = make_pair("gpt2")
    ids = random_ids(11)
    prefix, token = ids[:10], ids[10]
    rankings = {"a": torch.tensor([9, 3, 0, 1, 2, 4, 5, 6, 7, 8]), "recent": torch.tensor([2, 0, 3, 1])}

    @torch.no_grad()
    def value(removed):
        places = torch.arange(10)
        changed = prefix.clone()
        if replacement == "mask":
            places = torch.tensor([k for k in range(10) if k not in removed])
        else:
            changed[list(removed)] = replacement
        logits = plain(input_ids=changed[places][None], position_ids=places[None]).logits[0, -1:]
        return FUNCTIONS[function](logits, token[None], None)[0]

    curves = perturbation_curves(model, prefix, token, rankings, replacement, FUNCTIONS[function], memory=2**16)
    order = {"a": rankings["a"].tolist(), "recent": [8, 6, 9, 7]}  # The last four sources.
    sizes = {"a": [1, 1, 1, 2, 5], "recent": [1, 1, 1, 1, 2]}
    for name, ranked in order.items():
        lost = [value(set()) - value(set(ranked[:size])) for size in sizes[name]]
        assert_close(curves[name, "comprehensiveness"], torch.stack(lost), rtol=0, atol=1e-10)
        lost = [value(set()) - value(set(ranked[size:])) for size in sizes[name]]
        assert_close(curves[name, "sufficiency"], torch.stack(lost), rtol=0, atol=1e-10)


@pytest.fixture
def evaluate(run):
    return lambda *args: run("evaluate", "faithfulness", *args)


OPTIONS = (CORPUS, MODEL, "--measure", "delta_lp", "--measure", "attention", "--targets", 4, "--draws", 3)


def test_command(evaluate, tmp_path):
    result = evaluate(*OPTIONS, "-o", "table.tsv")
    assert result.exit_code == 0, result.output
    title, header, *lines = result.stdout.splitlines()
    assert title == "AOPC (bits) of 4 predicted tokens"
    assert re.split(r"\s{2,}", header) == [
        "measure",
        "comprehensiveness (mask)",
        "sufficiency (mask)",
        "comprehensiveness (unk)",
        "sufficiency (unk)",
    ]
    assert [line.split()[0] for line in lines] == ["delta_lp", "attention", "<random>"]
    rows = table((tmp_path / "table.tsv").read_text("utf-8"))
    assert len(rows) == 3 * 2 * 2 * 6
    for row in rows:
        assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
        assert (row["targets"], row["seed"]) == ("4", "0")
    chosen = [r for r in rows if (r["measure"], r["removal"], r["metric"]) == ("delta_lp", "mask", "sufficiency")]
    assert [row["fraction"] for row in chosen] == ["0.01", "0.05", "0.1", "0.2", "0.5", "aopc"]
    values = [float(row["mean"]) for row in chosen]
    assert abs(sum(values[:5]) / 5 - values[5]) < 1e-9
    shown = re.split(r"\s{2,}", lines[0])[2]
    assert shown == f"{values[5]:.3f} [{float(chosen[5]['low']):.3f}, {float(chosen[5]['high']):.3f}]"


def test_seeded(evaluate):
    first, again, other = (evaluate(*OPTIONS, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_all_targets_and_probabilities(evaluate):
    result = evaluate(
        CORPUS, MODEL, "--draws", 2, "--drop-in", "prob", "--removal", "mask", "--decomposition-length", 3
    )
    assert result.exit_code == 0, result.output
    # 51 tokens predict 50; the first of them has one source.
    assert result.stdout.startswith("AOPC (probability) of 49 predicted tokens\n")


@pytest.mark.parametrize("has_bos", [True, False])
def test_windows_are_cut_to_their_targets(has_bos):
    ids = torch.arange(20)
    window = Window(0, 1, 30, 50 - has_bos, 40, has_bos)
    whole = TokenisedWindow(window, ids, tuple(map(str, range(20))), (TextSpan(),) * 20, article=None)
    cut = only_targets(whole, [12, 15, 16])
    assert cut.window.targets == range(12, 17)
    assert cut.ids.tolist() == list(range(18))
    assert cut.window.position(17) == window.position(17)


def test_windows_together_are_each_alone(evaluate, tmp_path):
    (tmp_path / "three.txt").write_text("".join(f"!ARTICLE\n{text}\n" for text in ("A cat sat", "It is", "Why not")))
    one, three = (
        evaluate("three.txt", MODEL, "--draws", 2, "--removal", "mask", "--batch-size", n).stdout for n in (1, 3)
    )
    assert one == three
    assert "<random>" in one


def test_mistakes(evaluate):
    assert "unknown measure 'magic'" in refused(evaluate(CORPUS, MODEL, "--measure", "magic"))
    assert "nothing to rank: no predicted token has two" in refused(
        evaluate(CORPUS, MODEL, "--decomposition-length", 1)
    )
    assert "tokens, not one: choose mask, pad, unk, or one token" in refused(
        evaluate(CORPUS, MODEL, "--removal", "of the")
    )
    assert "no.txt" in refused(evaluate("no.txt", MODEL))
    result = evaluate(*OPTIONS, "-o", "t.tsv", "--quiet")
    assert result.stderr == ""
    assert "t.tsv exists: give --overwrite" in refused(evaluate(*OPTIONS, "-o", "t.tsv"))


def test_many_targets_are_pieces_of_their_window(monkeypatch):
    text = "The old dog ran and the cat sat on the cup."
    whole = decomp.faithfulness(text, MODEL, "attention", removals=["mask"], draws=2)
    monkeypatch.setattr("decomp.evaluation.faithfulness.MOST_TOGETHER", 3)
    pieces = decomp.faithfulness(text, MODEL, "attention", removals=["mask"], draws=2)
    assert max(whole["targets"]) > 6
    assert_close(torch.tensor(pieces["mean"]), torch.tensor(whole["mean"]))
    assert_close(torch.tensor(pieces["low"]), torch.tensor(whole["low"]))
