"""The strongest sources of one prediction, carried exactly beside all others together."""

import pytest
import torch

import decomp
from decomp.core.ablation import ablated_log2_prob
from decomp.measures.strongest import first_in_turn
from decomp.models.base import DecomposedModel
from decomp.tables.table import Table

TEXT = "The cat sat on the mat. It slept there (for the cat was tired), and nobody woke the"


@pytest.fixture(scope="module")
def model() -> DecomposedModel:
    return decomp.load_model("demo-opt", dtype="float64")


def by_source(table: Table) -> dict[object, float]:
    """Return scores by the source's position, or by the name of what is no token."""
    return {row.source_token if row.source_position is None else row.source_position: row.score for row in table}


def without(model: DecomposedModel, target: int, sources: list[int]) -> float:
    """Return ΔLP of several sources taken away at once, from the vectors themselves."""
    result = decomp.decompose(TEXT, model)
    vector = result.contributions(target)[sources].sum(0)[None]
    plain = result.next_log2_prob()[target].item()
    states, unembedding = result.hidden[:-1], result.need_unembedding()
    return plain - ablated_log2_prob(vector, torch.tensor([target]), states, result.next_ids(), unembedding).item()


def test_the_strongest_have_their_own_scores_and_all_others_one_together(model: DecomposedModel) -> None:
    every = by_source(decomp.score(TEXT, model, targets="last"))
    screens = [
        by_source(decomp.score(TEXT, model, "first_order", targets="last", function=function))
        for function in ("log2_prob", "logit")
    ]
    found = by_source(decomp.score(TEXT, model, targets="last", strongest=3))
    others = found.pop("<others>")
    bos = found.pop(-1)
    assert bos == pytest.approx(every[-1], abs=1e-9)
    rankings = [sorted((k for k in screen if k != -1), key=lambda k: -abs(screen[k])) for screen in screens]
    ranked = list(dict.fromkeys(k for turn in zip(*rankings, strict=True) for k in turn))
    assert sorted(found) == sorted(ranked[:3])
    assert found == pytest.approx({k: every[k] for k in found}, abs=1e-9)
    target = len(every) - 1
    assert others == pytest.approx(without(model, target, [int(k) + 1 for k in ranked[3:]]), abs=1e-9)


def test_a_source_that_raises_the_token_and_its_competitors_is_found(model: DecomposedModel) -> None:
    """By the slope of log2 probability, eleven other sources seem to do more."""
    text = (
        "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once "
        "or twice she had peeped into the book her sister was reading, but"
    )
    every = by_source(decomp.score(text, model, targets="last"))
    decides = max((k for k in every if k != -1), key=lambda k: abs(every[k]))
    slopes = by_source(decomp.score(text, model, "first_order", targets="last"))
    assert abs(every[decides]) > 10
    assert sum(abs(slopes[k]) > abs(slopes[decides]) for k in slopes if k != -1) == 11
    found = by_source(decomp.score(text, model, targets="last", strongest=2))
    assert found[decides] == pytest.approx(every[decides], abs=1e-9)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (2, [0, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_rankings_name_their_first_in_turn(count: int, expected: list[int]) -> None:
    sizes = [torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, 2.0, 3.0])]
    assert first_in_turn(sizes, count).nonzero()[:, 0].tolist() == expected


def test_older_sources_than_are_kept_are_the_remainder(model: DecomposedModel) -> None:
    every = by_source(decomp.score(TEXT, model, targets="last"))
    found = by_source(decomp.score(TEXT, model, targets="last", strongest=2, decomposition_length=5))
    target = len(every) - 1
    recent = [k for k in found if not isinstance(k, str)]
    assert len(recent) == 2
    assert min(recent) > target - 1 - 5
    assert found["<remainder>"] == pytest.approx(without(model, target, list(range(target - 4))), abs=1e-9)
    rest = sorted({target + 1 - n for n in range(1, 6)} - {int(k) + 1 for k in recent})
    assert found["<others>"] == pytest.approx(without(model, target, rest), abs=1e-9)


def test_a_span_and_groups(model: DecomposedModel) -> None:
    asked = {"targets": "18:21", "sources": "sentence"}
    every = by_source(decomp.score(TEXT, model, **asked))
    found = by_source(decomp.score(TEXT, model, **asked, strongest=1))
    (source,) = (k for k in found if k not in (-1, "<others>", "<own>"))
    assert found[source] == pytest.approx(every[source], abs=1e-9)
    assert found["<others>"] == pytest.approx(sum(every.values()) - every[source] - every[-1], abs=1e-9)


def test_where_all_are_the_strongest_there_are_no_others(model: DecomposedModel) -> None:
    every = by_source(decomp.score(TEXT, model, targets="last"))
    assert by_source(decomp.score(TEXT, model, targets="last", strongest=99)) == pytest.approx(every, abs=1e-9)


def test_refusals(model: DecomposedModel) -> None:
    with pytest.raises(ValueError, match="for single targets and spans: give --target"):
        decomp.score(TEXT, model, strongest=3)
    for other in ("attention", "occlusion"):
        with pytest.raises(ValueError, match=f"is for delta_lp alone: score {other} without it"):
            decomp.score(TEXT, model, ["delta_lp", other], targets="last", strongest=3)
    with pytest.raises(ValueError, match="strongest must be at least 1, not 0"):
        decomp.score(TEXT, model, targets="last", strongest=0)
