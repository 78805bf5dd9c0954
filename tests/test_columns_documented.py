"""docs/tables.md has every column of every table that the package writes, in a section of the table's own."""

import ast
import re
from dataclasses import fields
from typing import Any, get_args

import pytest
import torch

from decomp.evaluation import agreement, alignment, faithfulness
from decomp.locate.edges import checking as edge_checks
from decomp.locate.edges import rows as edge_rows
from decomp.locate.layers.rows import LayerRow, MeanRow
from decomp.locate.neurons.checking import CheckRow
from decomp.locate.neurons.rows import CountRow, NeuronRow
from decomp.measures.contrast import COLUMNS as ITEM_COLUMNS
from decomp.runs.stored import DELTA_LP_COLUMNS
from decomp.tables.columns import COLUMNS
from decomp.tables.front import Front
from decomp.tables.predictors import LAGGED, PLACE, RENAMED, SPREAD
from decomp.tables.reduction import Reduction
from decomp.tables.summary import SUMMARY
from tests.conftest import ROOT


def something(of: Any) -> Any:
    """A value of the type of a field of `Front` with which it adds its columns."""
    if "Tensor" in str(of):
        return torch.ones(3, dtype=torch.bool)
    return {bool: True, int: 2}.get(of) or get_args(of)[-1]


def every_front_column() -> tuple[str, ...]:
    """The columns of a table of scores with all that can be asked for in front."""
    return Front(**{field.name: something(field.type) for field in fields(Front)}).columns


TABLES = {
    "Scores": {*every_front_column(), *DELTA_LP_COLUMNS, *Reduction(top=1).columns(COLUMNS), "model"},
    "Contrast": set(ITEM_COLUMNS),
    "Summary": {"surprisal", *SUMMARY},
    "Predictors": {*RENAMED.values(), *PLACE, *SPREAD, "frequency", *LAGGED} - {"entropy"},
    "Layers": {*LayerRow._fields, *MeanRow._fields},
    "Neurons": {*NeuronRow._fields, *CountRow._fields},
    "Checks of neurons": {*CheckRow._fields} - {"fact", "level"},
    "Edges": set(edge_rows.COLUMNS),
    "Checks of edges": set(edge_checks.COLUMNS),
    "Faithfulness": set(faithfulness.COLUMNS),
    "Alignment": set(alignment.COLUMNS),
    "Agreement": set(agreement.COLUMNS),
}
KNOWN = {
    *("tables/columns.COLUMNS", "tables/front.PLACE_COLUMNS", "runs/stored.DELTA_LP_COLUMNS"),
    *("tables/contrasting.CONTRAST_COLUMNS", "measures/contrast.COLUMNS", "tables/intervals.COLUMNS"),
    *(f"evaluation/{name}.COLUMNS" for name in ("agreement", "alignment", "faithfulness")),
    *("locate/edges/rows.COLUMNS", "locate/edges/checking.COLUMNS"),
    *("locate/layers/rows.LayerRow", "locate/layers/rows.MeanRow", "locate/neurons/rows.NeuronRow"),
    *("locate/neurons/rows.CountRow", "locate/neurons/checking.CheckRow"),
    # What is read from people's tables:
    *("corpus/contrast_items.COLUMNS", "corpus/contrast_items.BLIMP_COLUMNS"),
}
"""What names the columns of a table: a constant `…COLUMNS`, or a NamedTuple `…Row`, by its module."""


def sections() -> dict[str, set[str]]:
    """The columns that each section of the page explains."""
    page = (ROOT / "docs" / "tables.md").read_text("utf-8")
    parts = re.split(r"(?m)^## (.*)$", page)[1:]
    rows = {name: re.findall(r"(?m)^\| (`[^|]*`) \|", text) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return {name: set(re.findall(r"`(\w+)`", " ".join(found))) for name, found in rows.items()}


@pytest.mark.parametrize("name", TABLES)
def test_each_table_has_its_columns_explained(name):
    assert sections()[name] == TABLES[name]


def test_there_is_no_table_of_which_this_test_does_not_know():
    found = set()
    for path in (ROOT / "decomp").rglob("*.py"):
        module = str(path.relative_to(ROOT / "decomp").with_suffix(""))
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name):
                found |= {f"{module}.{target.id}"} if target.id.endswith("COLUMNS") else set()
            if isinstance(node, ast.ClassDef) and node.name.endswith("Row"):
                found.add(f"{module}.{node.name}")
    assert found == KNOWN, "explain its columns in docs/tables.md, and add it to TABLES and KNOWN here"
