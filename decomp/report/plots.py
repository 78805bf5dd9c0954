"""Pictures of tables in one style, drawn by matplotlib without a display."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from jaxtyping import Float, Int

from decomp.io.files import complete_or_absent
from decomp.report.readable import shortened
from decomp.report.texts import ShownText
from decomp.tables.intervals import bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Arc

    from decomp.locate.layers.rows import MeanRow
    from decomp.locate.neurons.rows import CountRow

P = ParamSpec("P")
PICTURES = (".png", ".svg", ".pdf")
DATES = {".png": "Software", ".svg": "Date", ".pdf": "CreationDate"}
"""The entry of each format's metadata that would give the same picture other bytes."""
LOOK: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a929b",
    "axes.labelcolor": "#3c444c",
    "xtick.color": "#5c6670",
    "ytick.color": "#5c6670",
    "xtick.labelcolor": "#1b1f24",
    "ytick.labelcolor": "#1b1f24",
    "axes.prop_cycle": "cycler('color', ['#d4700f', '#2f7fd6', '#5d4a86', '#2e8b77', '#8a929b'])",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # tokens may have dollar signs
}
PLUS, MINUS = "#f28e1c", "#4c9be8"
"""Orange and blue, as on the page: they are told apart by all eyes."""
MOST_LABELS = 60
"""The most tokens whose labels fit beside a picture."""
MOST_ARCS = 60
FULL = 0.97
"""The quantile of absolute scores from which on colours are full."""
LONGEST_LABEL = 18
"""The most characters of a token's label."""
LONGEST_GROUP = 30
"""The most characters of the label of a group of tokens."""


@contextmanager
def package_style() -> Iterator[None]:
    """Set the package's style while something is drawn. ValueError without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure  # noqa: F401
    except ImportError as error:
        raise ValueError("pictures need matplotlib: pip install 'tokenwise-decomposition[plot]'") from error
    with rc_context(LOOK):
        yield


def in_package_style(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Return a drawing function that uses the package's style."""

    @wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> "Figure":
        with package_style():
            return draw(*args, **options)

    return drawn


def check_picture(path: Path) -> None:
    """Raise ValueError where matplotlib is missing, or for a suffix that is not a picture's."""
    if path.suffix not in PICTURES:
        raise ValueError(f"{path} must be a picture, {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")
    with package_style():
        pass


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure that belongs to no display, its size in inches."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that shows itself in a notebook without pyplot."""

        def _repr_png_(self) -> bytes:
            content = BytesIO()
            self.savefig(content, format="png", dpi=110)
            return content.getvalue()

    return Picture(figsize=(width, height), layout="constrained")


def diverging_colours() -> Any:
    """Return the colours from blue by white to orange."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("decomp", [MINUS, "#ffffff", PLUS])


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a picture that is complete or absent; the same picture gives the same bytes."""
    from matplotlib import rc_context

    metadata = {DATES[path.suffix]: None}
    with (
        complete_or_absent(path) as beside,
        rc_context({**LOOK, "svg.hashsalt": "decomp"}),
        warnings.catch_warnings(),
    ):
        # A script that the machine has no font for is shown as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(beside, format=path.suffix[1:], dpi=150, metadata=metadata)


@dataclass(frozen=True)
class PlottedScores:
    """The scores of one text by one measure, with all that a picture of them needs."""

    text: ShownText
    measure: int
    name: str
    unit: str = ""
    min_distance: int = 1
    hide_bos: bool = False

    def pairs(self, target: int | None = None) -> Int[np.ndarray, " pairs"]:
        """Return the indices of the pairs (of one target, or all) that have a score and are shown."""
        text = self.text
        first, stop = (0, len(text.sources)) if target is None else text.starts[target : target + 2]
        pairs = np.arange(first, stop)
        kept = ~np.isnan(text.scores[self.measure, pairs]) & (self.distances(pairs) >= self.min_distance)
        return pairs[kept & ((text.positions[text.sources[pairs]] >= 0) | (not self.hide_bos))]

    def predicted(self) -> Int[np.ndarray, " pairs"]:
        """Return the place of the predicted token of every pair."""
        return np.repeat(self.text.targets, np.diff(self.text.starts))

    def distances(self, pairs: Int[np.ndarray, " pairs"]) -> Int[np.ndarray, " pairs"]:
        """Return the distance of each pair in tokens, from where its source begins to its target."""
        positions = self.text.positions
        return positions[self.predicted()[pairs]] - positions[self.text.sources[pairs]]

    def scores(self, pairs: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
        """Return the scores of these pairs."""
        return self.text.scores[self.measure, pairs]

    def limit(self) -> float:
        """Return the absolute score at which colours are full. ValueError where nothing is shown."""
        pairs = self.pairs()
        if not len(pairs):
            raise ValueError(f"no score of {self.text.name} is left to draw: take a smaller --min-distance")
        return float(np.quantile(np.abs(self.scores(pairs)), FULL)) or 1.0

    def label(self, place: int) -> str:
        """Return the label of a place, shortened to a length that fits."""
        return shortened(self.text.pieces[place], LONGEST_LABEL)

    def source(self, place: int) -> str:
        """Return the label of the source that begins at a place, shortened to a length that fits."""
        return shortened(self.text.source(place), LONGEST_LABEL if self.text.stops is None else LONGEST_GROUP)

    def columns(self) -> Int[np.ndarray, " columns"]:
        """Return the places that have a column of their own: all, or those at which groups of tokens begin."""
        return np.arange(len(self.text.pieces)) if self.text.stops is None else np.unique(self.text.sources)

    def axis(self) -> str:
        """Return the label of an axis of scores: the measure, with its unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


@in_package_style
def matrix(seen: PlottedScores) -> "Figure":
    """Draw predicted tokens (down) against their sources (across); tokens by their positions where there are many."""
    text, limit = seen.text, seen.limit()
    pairs, columns = seen.pairs(), seen.columns()
    values = np.full((len(text.targets), len(columns)), np.nan)
    rows, sources = (
        np.searchsorted(text.targets, seen.predicted()[pairs]),
        np.searchsorted(columns, text.sources[pairs]),
    )
    values[rows, sources] = seen.scores(pairs)
    side, share = float(np.clip(0.17 * max(values.shape), 3, 9)), len(values) / max(1, len(columns))
    labels = 1 if text.stops is None else 2
    figure = new_figure(max(3, side * min(1, 1 / share)) + 2, side * max(0.25, min(1, share)) + labels)
    axes = figure.subplots()
    image = axes.imshow(
        values, cmap=diverging_colours(), vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    label_ticks(axes.xaxis, seen, columns, seen.source, rotation=90 if text.stops is None else 45)
    label_ticks(axes.yaxis, seen, text.targets, seen.label)
    axes.set_xlabel("source")
    axes.set_ylabel("predicted token")
    figure.colorbar(image, ax=axes, extend="both", shrink=0.8, label=seen.axis())
    return figure


def label_ticks(
    axis: Any, seen: PlottedScores, places: Int[np.ndarray, " n"], label: Callable[[int], str], rotation: int = 0
) -> None:
    """Label an axis by tokens or sources where they fit, else by positions."""
    if len(places) <= MOST_LABELS:
        slanted = {"rotation": rotation, "ha": "right", "rotation_mode": "anchor"} if 0 < rotation < 90 else {}
        labels = [label(place) for place in places]
        axis.set_ticks(range(len(places)), labels, **(slanted or {"rotation": rotation}))
        axis.set_tick_params(length=0, labelsize=9 if len(places) <= 40 else 7)
    else:
        step = -(-len(places) // 12)
        chosen = range(0, len(places), step)
        axis.set_ticks(chosen, [str(seen.text.positions[places[n]]) for n in chosen])


@in_package_style
def arcs(seen: PlottedScores) -> "Figure":
    """Draw the strongest pairs as arcs over the text: orange for positive scores, blue for negative, wide for large."""
    text = seen.text
    if text.stops is not None:
        raise ValueError(f"arcs are between single tokens or words, sources of {text.name} are groups: draw heat")
    if len(text.pieces) > MOST_LABELS:
        raise ValueError(f"arcs are for up to {MOST_LABELS} tokens, {text.name} has {len(text.pieces)}: draw heat")
    seen.limit()
    pairs = seen.pairs()
    strongest = pairs[np.argsort(-np.abs(seen.scores(pairs)), kind="stable")][:MOST_ARCS]
    most, farthest = (
        np.abs(seen.scores(strongest)).max() or 1.0,
        int((seen.predicted() - text.sources)[strongest].max()),
    )
    figure = new_figure(max(4, 0.3 * len(text.pieces)), min(5, 1.3 + 0.14 * farthest))
    axes = figure.subplots()
    for pair in strongest[::-1]:
        axes.add_patch(arc(int(text.sources[pair]), int(seen.predicted()[pair]), float(seen.scores(pair)) / most))
    axes.set(xlim=(-0.7, len(text.pieces) - 0.3), ylim=(0, farthest * 1.06), yticks=[])
    axes.spines[:].set_visible(False)
    label_ticks(axes.xaxis, seen, np.arange(len(text.pieces)), seen.label, rotation=60)
    axes.set_title(f"{seen.name}: the {len(strongest)} strongest; orange supports, blue opposes", loc="left")
    return figure


def arc(source: int, target: int, share: float) -> "Arc":
    """Return the arc between two places for a score, given as its share (−1 to 1) of the largest one."""
    from matplotlib.patches import Arc

    middle, span, colour, width = (source + target) / 2, target - source, PLUS if share > 0 else MINUS, abs(share)
    found = Arc((middle, 0), span, 2 * span, theta1=0, theta2=180, color=colour, lw=0.4 + 3.2 * width)
    found.set_alpha(0.25 + 0.75 * width)
    return found


@in_package_style
def bars(seen: PlottedScores, target: int, top: int = 15) -> "Figure":
    """Draw the strongest sources of one target, in order, and the rows that are not tokens below them."""
    text, pairs = seen.text, seen.pairs(target)
    order = pairs[np.argsort(-np.abs(seen.scores(pairs)), kind="stable")][:top]
    rows = [(f"{seen.source(text.sources[n])}  −{seen.distances(n)}", float(seen.scores(n))) for n in order]
    extra = {name: float(values[seen.measure, target]) for name, values in text.extra.items()}
    rows += [(name, score) for name, score in extra.items() if not np.isnan(score)]
    if not rows:
        raise ValueError(f"no score of this token of {text.name} is left to draw: take a smaller --min-distance")
    names, scores = zip(*rows, strict=True)
    figure = new_figure(5, 0.9 + 0.23 * len(rows))
    axes = figure.subplots()
    axes.barh(range(len(rows)), scores, color=[PLUS if score > 0 else MINUS for score in scores], height=0.72)
    axes.axvline(0, color="#8a929b", lw=0.8)
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(seen.axis())
    place = int(text.targets[target])
    axes.set_title(f"“{seen.label(place)}” at {text.positions[place]}: {-text.log2_prob[target]:.1f} bits", loc="left")
    return figure


@in_package_style
def distances(texts: Sequence[Sequence[PlottedScores]], seed: int = 0) -> "Figure":
    """Draw the mean score by distance, a panel per measure, with 95 % bootstrap intervals over predicted tokens.

    `texts` has, for each measure, the scores of every text. The beginning of sequence is left out.
    """
    figure = new_figure(5.2, 0.6 + 2.1 * len(texts))
    panels = figure.subplots(len(texts), 1, squeeze=False, sharex=True)[:, 0]
    for axes, parts in zip(panels, texts, strict=True):
        decay = decay_of(parts, seed)
        places, means, lows, highs = (np.array(column) for column in zip(*decay, strict=True))
        axes.fill_between(places, lows, highs, color=PLUS, alpha=0.28, lw=0)
        axes.plot(places, means, color="#d4700f", lw=1.5, marker=".", markersize=3)
        axes.axhline(0, color="#8a929b", lw=0.7)
        axes.set_ylabel(parts[0].axis().replace(", ", "\n", 1))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[-1].set_xlabel("distance in tokens")
    return figure


def decay_of(parts: Sequence[PlottedScores], seed: int) -> list[tuple[int, float, float, float]]:
    """Return distance, mean and interval of the scores, for each distance that several predicted tokens have."""
    kept = [(part.distances(pairs), part.scores(pairs)) for part in parts for pairs in [without_bos(part)]]
    far, scores = (np.concatenate(each) for each in zip(*kept, strict=True))
    order = np.argsort(far, kind="stable")
    groups = np.split(scores[order], np.flatnonzero(np.diff(far[order])) + 1)
    found = zip(np.unique(far).tolist(), groups, strict=True)
    decay = [(at, float(v.mean()), *bootstrap_interval(v.astype(float), seed)) for at, v in found if len(v) > 1]
    if not decay:
        raise ValueError("no distance has the scores of two predicted tokens: draw bars of one token instead")
    return decay


def without_bos(seen: PlottedScores) -> Int[np.ndarray, " pairs"]:
    """Return the pairs whose source is a token of the text."""
    pairs = seen.pairs()
    return pairs[seen.text.positions[seen.text.sources[pairs]] >= 0]


@in_package_style
def agreement(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw the rank correlations of `decomp evaluate agreement`: Spearman's below the diagonal, Kendall's above."""
    names = list(dict.fromkeys([row[side] for side in ("measure", "other_measure") for row in rows]))
    values = np.full((len(names), len(names)), np.nan)
    for row in rows:
        low, high = sorted((names.index(row["measure"]), names.index(row["other_measure"])))
        place = (high, low) if row["metric"] == "spearman" else (low, high)
        values[place] = row["mean"]
    figure = new_figure(2.6 + 0.62 * len(names), 1.6 + 0.5 * len(names))
    axes = figure.subplots()
    image = axes.imshow(values, cmap=diverging_colours(), vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="#1b1f24")
    labels = [name.replace("_", " ") for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Spearman below, Kendall above", loc="left")
    figure.colorbar(image, ax=axes, label="rank correlation")
    return figure


@in_package_style
def heat_map(means: Sequence["MeanRow"], unit: str) -> "Figure":
    """Draw mean scores by layer: a panel per component, a row per role; for direct shares a row per component."""
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
    """Draw one panel, its colours symmetric around zero."""
    from decomp.locate.facts import OBJECT_ROLES, ROLES  # imports torch

    order = (*ROLES, *OBJECT_ROLES)
    names = sorted(by_name, key=lambda name: order.index(name) if name in order else -1)
    values = np.array([[by_name[name].get(layer, np.nan) for layer in range(layers)] for name in names])
    limit = float(np.nanmax(np.abs(values))) or 1.0
    image = axis.imshow(values, cmap=diverging_colours(), vmin=-limit, vmax=limit, aspect="auto")
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axis.set_xticks(range(0, layers, -(-layers // 24)))
    figure.colorbar(image, ax=axis)


@in_package_style
def layer_histogram(counts: Sequence["CountRow"]) -> "Figure":
    """Draw the neurons found in each layer, mean over items; levels of edits side by side."""
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
