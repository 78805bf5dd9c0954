"""The choice of a picture by the kind of table: of scores, of agreement, of layers, of neurons."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decomp.measures.registry import SCORES
from decomp.report import plots
from decomp.report.opening import STORED, check_long, open_shown
from decomp.report.terminal import measure_number, target_at
from decomp.report.texts import texts_of
from decomp.tables.columns import COLUMNS
from decomp.tables.files import TableFile, columns_of
from decomp.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from decomp.locate.layers.rows import MeanRow
    from decomp.locate.neurons.rows import CountRow

OF_TEXTS = ("heat", "arcs", "bars", "distance")
OF_TABLES = {
    "agreement": {"measure", "other_measure", "metric", "mean"},
    "layers": {"component", "layer", "role"},
    "neurons": {"layer", "neuron", "level"},
}
"""Pictures of tables other than long ones, and the columns by which these are told."""
KINDS = (*OF_TEXTS, *OF_TABLES)


@dataclass(frozen=True)
class PlotRequest:
    """The part of a table of scores that a picture shows."""

    kind: str = "heat"
    measure: str | None = None
    """The measure shown; by default the table's first, or for distances all."""
    target: int | str = "last"
    top: int = 15
    min_distance: int = 1
    hide_bos: bool = False
    seed: int = 0


def picture_of(path: Path, kind: str | None, articles: Sequence[int] = (), **options: Any) -> "Figure":
    """Return the picture of the table in a file. ValueError for a kind that the table can't be drawn as."""
    columns = COLUMNS if path.is_dir() or path.suffix == STORED else columns_of(path)
    own = next((name for name, needed in OF_TABLES.items() if needed <= set(columns)), None)
    own = None if set(COLUMNS) <= set(columns) else own
    if own is None:
        return picture_of_scores(
            open_shown(path, articles), PlotRequest(checked(path, kind or "heat", OF_TEXTS), **options)
        )
    checked(path, kind or own, (own,))
    rows = [dict(zip(columns, row, strict=True)) for row in TableFile(path, tuple(columns)).rows()]
    if not rows:
        raise ValueError(f"{path} has no rows: there is nothing to draw")
    return DRAW[own](rows)


def checked(path: Path, kind: str, possible: Sequence[str]) -> str:
    """Return the kind of a picture. ValueError for a kind that the table can't be drawn as."""
    if kind not in possible:
        raise ValueError(f"{path} makes no picture of the kind {kind}: choose {', '.join(possible)}")
    return kind


def picture_of_scores(table: Table, wanted: PlotRequest) -> "Figure":
    """Return a picture of a long table: of its first text, or for distances of all.

    ValueError for a measure or target that the table lacks, and where nothing is left to draw.
    """
    check_long(table)
    texts, names = texts_of(table), table.measures()
    number = measure_number(table, wanted.measure)

    def seen(text: Any, measure: int) -> plots.PlottedScores:
        return plots.PlottedScores(
            text, measure, names[measure], unit_of(names[measure]), wanted.min_distance, wanted.hide_bos
        )

    first = seen(texts[0], number)
    if wanted.kind == "distance":
        chosen = range(len(names)) if wanted.measure is None else [number]
        return plots.distances([[seen(text, measure) for text in texts] for measure in chosen], wanted.seed)
    if wanted.kind == "bars":
        return plots.bars(first, target_at(texts[0], wanted.target), wanted.top)
    return {"heat": plots.matrix, "arcs": plots.arcs}[wanted.kind](first)


def unit_of(name: str) -> str:
    """Return a measure's unit; empty where a function other than the measure's own was attributed."""
    base, _, function = name.partition(":")
    return "" if function or base not in SCORES else SCORES[base].unit.partition(", or that of the function")[0]


def means_of(rows: Sequence[Mapping[str, Any]]) -> list["MeanRow"]:
    """Return the mean scores by role of a table of layers, which holds them or the scores of its items."""
    from decomp.locate.layers.rows import LayerRow, MeanRow, Means  # imports torch

    if "mean" in rows[0]:
        return [MeanRow(**{name: row[name] for name in MeanRow._fields}) for row in rows]
    means, items = Means(), dict[tuple[Any, Any], list[LayerRow]]()
    for row in rows:
        each = LayerRow(**{name: row[name] for name in LayerRow._fields})
        items.setdefault((each.item, each.measure), []).append(each)
    for own in items.values():
        means.add(own)
    return means.rows(0.95, 0)


def counts_of(rows: Sequence[Mapping[str, Any]]) -> list["CountRow"]:
    """Return the number of neurons found for each item in each layer."""
    from decomp.locate.neurons.rows import CountRow  # imports torch

    neurons = {tuple(row.get(name, "") for name in ("item", "fact", "level", "cut", "layer", "neuron")) for row in rows}
    found = Counter(neuron[:5] for neuron in neurons)
    items = dict.fromkeys(neuron[:4] for neuron in sorted(neurons, key=str))
    layers = 1 + max(row["layer"] for row in rows)
    return [CountRow._make((*item, layer, found[(*item, layer)])) for item in items for layer in range(layers)]


DRAW: dict[str, Callable[[Sequence[Mapping[str, Any]]], "Figure"]] = {
    "agreement": plots.agreement,
    "layers": lambda rows: plots.heat_map(means_of(rows), rows[0].get("function", "score")),
    "neurons": lambda rows: plots.layer_histogram(counts_of(rows)),
}
