"""docs/tables.md has every column of every table that the package writes, in a section of the table's own."""

import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from typing import Any, get_args

import pytest
import torch

from decomp.corpus.conllu import ANNOTATIONS
from decomp.evaluation import agreement, alignment, faithfulness
from decomp.locate.edges import checking as edge_checks
from decomp.locate.edges import scoring as edge_scores
from decomp.locate.layers.rows import LayerRow, MeanRow
from decomp.locate.neurons.checking import CheckRow
from decomp.locate.neurons.rows import CountRow, NeuronRow
from decomp.measures.contrast import COLUMNS as ITEM_COLUMNS
from decomp.runs.stored import DELTA_LP_COLUMNS
from decomp.tables.blocks import TYPES
from decomp.tables.columns import COLUMNS
from decomp.tables.leading_columns import LeadingColumns
from decomp.tables.predictors import LAGGED, PLACE, RENAMED, SPREAD
from decomp.tables.reduction import Reduction
from decomp.tables.summary import SUMMARY
from tests.conftest import ROOT


def something(of: Any) -> Any:
    """A value of the type of a field of `LeadingColumns` with which it adds its columns."""
    if "Tensor" in str(of):
        return torch.ones(3, dtype=torch.bool)
    if "Mapping" in str(of):
        return dict.fromkeys(ANNOTATIONS, str)
    return {bool: True, int: 2}.get(of) or get_args(of)[-1]


def every_front_column() -> tuple[str, ...]:
    """The columns of a table of scores with all that can be asked for in front."""
    return LeadingColumns(**{field.name: something(field.type) for field in fields(LeadingColumns)}).columns


TABLES = {
    "Scores": {*every_front_column(), *DELTA_LP_COLUMNS, *Reduction(top=1).columns(COLUMNS), "model"},
    "Contrast": set(ITEM_COLUMNS),
    "Summary": {"surprisal", *SUMMARY},
    "Predictors": {*RENAMED.values(), *PLACE, *SPREAD, "frequency", *LAGGED} - {"entropy"},
    "Layers": {*LayerRow._fields, *MeanRow._fields},
    "Neurons": {*NeuronRow._fields, *CountRow._fields},
    "Checks of neurons": {*CheckRow._fields} - {"fact", "level"},
    "Edges": set(edge_scores.COLUMNS),
    "Checks of edges": set(edge_checks.COLUMNS),
    "Faithfulness": set(faithfulness.COLUMNS),
    "Alignment": set(alignment.COLUMNS),
    "Agreement": set(agreement.COLUMNS),
}


def sections() -> dict[str, set[str]]:
    """The columns that each section of the page explains."""
    page = (ROOT / "docs" / "tables.md").read_text("utf-8")
    parts = re.split(r"(?m)^## (.*)$", page)[1:]
    rows = {name: re.findall(r"(?m)^\| (`[^|]*`) \|", text) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return {name: set(re.findall(r"`(\w+)`", " ".join(found))) for name, found in rows.items()}


@pytest.mark.parametrize("name", TABLES)
def test_each_table_has_its_columns_explained(name):
    assert sections()[name] == TABLES[name]


def named_columns() -> Iterator[tuple[str, str]]:
    """The columns that constants `…COLUMNS` and NamedTuples `…Row` of any module name, but those of people's tables."""
    for path in (ROOT / "decomp").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] not in ("corpus", "models", "cli", "data"):
            for name, value in vars(import_module(".".join(parts).removesuffix(".__init__"))).items():
                columns = (
                    value if name.endswith("COLUMNS") else getattr(value, "_fields", ()) if name.endswith("Row") else ()
                )
                yield from ((name, column) for column in columns)


def test_every_column_that_is_named_anywhere_is_explained():
    found = set(named_columns())
    assert len({column for _, column in found}) > 50
    explained = set().union(*sections().values())
    assert sorted((name, column) for name, column in found if column not in explained) == []


def test_columns_of_scores_are_read_back_as_what_they_are():
    texts = {"token", "source_token", "measure", "model", "article_id", "item", "phenomenon", "foil", "multi_token"}
    texts |= {*ANNOTATIONS}
    assert texts <= sections()["Scores"] | sections()["Contrast"]
    assert (sections()["Scores"] | sections()["Contrast"]) - texts <= set(TYPES)
