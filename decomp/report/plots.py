"""Pictures of where in the network: matplotlib draws them, without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decomp.io.files import complete_or_absent
from decomp.locate.facts import OBJECT_ROLES, ROLES
from decomp.locate.layers.rows import MeanRow
from decomp.locate.neurons.rows import CountRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")


def check_picture(path: Path) -> None:
    """ValueError where matplotlib is missing, or the suffix is that of no picture."""
    if path.suffix not in PICTURES:
        raise ValueError(f"{path} must be a picture, {' or '.join(PICTURES)}")
    new_figure(1, 1)


def new_figure(width: float, height: float) -> "Figure":
    """A figure that no display knows of. ValueError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("pictures need matplotlib: pip install 'tokenwise-decomposition[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_picture(figure: "Figure", path: Path) -> None:
    """Complete or absent; the same bytes for the same picture."""
    from matplotlib import rc_context

    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with complete_or_absent(path) as beside, rc_context({"svg.hashsalt": "decomp"}):
        figure.savefig(beside, format=path.suffix[1:], dpi=150, metadata=metadata)


def heat_map(means: Sequence[MeanRow], unit: str) -> "Figure":
    """Mean scores by layer: a panel per component with a row per role; one for direct shares, a row per component."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for row in means:
        if row.layer is not None:
            direct = row.measure == "direct"
            title = "direct, last token" if direct else f"{row.component}, gradient × activation"
            panels.setdefault(title, {}).setdefault(row.component if direct else row.role, {})[row.layer] = row.mean
    layers = 1 + max(row.layer for row in means if row.layer is not None)
    heights = [len(names) for names in panels.values()]
    figure = new_figure(3.5 + 0.35 * layers, 1 + 0.32 * sum(heights) + 0.7 * len(panels))
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axis, (title, by_name) in zip(axes[:, 0], panels.items(), strict=True):
        draw_heat(figure, axis, by_name, layers)
        axis.set_title(title, fontsize="medium")
    axes[-1, 0].set_xlabel("layer")
    figure.supxlabel(f"mean over items, {unit}", fontsize="small")
    return figure


def draw_heat(figure: "Figure", axis: Any, by_name: Mapping[str, Mapping[int, float]], layers: int) -> None:
    """One panel, colours symmetric around zero."""
    order = (*ROLES, *OBJECT_ROLES)
    names = sorted(by_name, key=lambda name: order.index(name) if name in order else -1)
    values = np.array([[by_name[name].get(layer, np.nan) for layer in range(layers)] for name in names])
    limit = float(np.nanmax(np.abs(values))) or 1.0
    image = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axis.set_xticks(range(0, layers, -(-layers // 24)))
    figure.colorbar(image, ax=axis)


def layer_histogram(counts: Sequence[CountRow]) -> "Figure":
    """Neurons found in each layer, mean over items; levels of edits side by side."""
    levels = list(dict.fromkeys(row.level for row in counts))
    layers = 1 + max(row.layer for row in counts)
    figure = new_figure(2.5 + 0.35 * layers, 3)
    axis, width = figure.subplots(), 0.8 / len(levels)
    for number, level in enumerate(levels):
        means = [np.mean([r.neurons for r in counts if (r.level, r.layer) == (level, n)]) for n in range(layers)]
        places = np.arange(layers) - 0.4 + width * (number + 0.5)
        axis.bar(places, means, width, label=level)
    if levels != [""]:
        axis.legend(title="masked")
    axis.set_xticks(range(0, layers, -(-layers // 24)))
    axis.set_xlabel("layer")
    axis.set_ylabel("neurons found, mean over items")
    return figure
