"""The strongest edges of the computation graph, as JSON and as a picture (Graphviz)."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Int

from decomp.io.files import complete_or_absent

if TYPE_CHECKING:
    from torch import Tensor

    from decomp.locate.edges.scoring import EdgeScores

RENDERED = (".png", ".svg", ".pdf")
WIDEST = 6.0
"""The width of the strongest edge's line, in points."""


def write_subgraph(path: Path, about: Mapping[str, Any], result: "EdgeScores", edges: "Int[Tensor, 'edges 2']") -> None:
    """Write the facts `about` the scores, the nodes in network order, and these edges as JSON."""
    from decomp.locate.edges.scoring import COLUMNS, edge_rows  # imports torch

    content = {
        **about,
        "nodes": nodes_of(result, edges),
        "edges": [dict(zip(COLUMNS, row, strict=True)) for row in edge_rows(result, edges)],
    }
    with complete_or_absent(path) as beside:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def nodes_of(result: "EdgeScores", edges: "Int[Tensor, 'edges 2']") -> list[str]:
    """Return the nodes that the edges touch, in network order."""
    graph = result.graph
    touched = {graph.sources[u] for u in edges[:, 0]} | {graph.destinations[v][0] for v in edges[:, 1]}
    return [name for name in (*graph.sources, "logits") if name in touched]


def dot_text(result: "EdgeScores", edges: "Int[Tensor, 'edges 2']") -> str:
    """Return Graphviz DOT, embedding below and logits above.

    An edge is as wide as its score is large, red where ablating it raises the loss, blue where it lowers it.
    """
    from decomp.locate.edges.scoring import edge_rows  # imports torch

    strongest = max((abs(score) for *_, score in edge_rows(result, edges)), default=0) or 1
    lines = ["digraph edges {", "  rankdir=BT;", '  node [shape=box, fontname="sans-serif"];', "  edge [fontsize=9];"]
    lines += [f'  "{name}";' for name in nodes_of(result, edges)]
    for source, node, name, score in edge_rows(result, edges):
        colour = "firebrick" if score > 0 else "steelblue"
        width = max(0.3, WIDEST * abs(score) / strongest)
        label = "" if name == "input" else f', label="{name[0]}"'
        lines.append(f'  "{source}" -> "{node}" [color={colour}, penwidth={width:.2f}, tooltip="{score:.4g}"{label}];')
    return "\n".join([*lines, "}", ""])


def check_picture(path: Path) -> None:
    """Raise ValueError for a suffix that is not a picture's, or for one that needs Graphviz where it is missing."""
    if path.suffix not in (".dot", *RENDERED):
        raise ValueError(f"{path} must be .dot or a picture, {', '.join(RENDERED)}")
    if path.suffix != ".dot" and shutil.which("dot") is None:
        raise ValueError(f"{path} needs Graphviz, whose dot is not installed: install it, or write a .dot file")


def draw(path: Path, result: "EdgeScores", edges: "Int[Tensor, 'edges 2']") -> None:
    """Write the graph of these edges as DOT text, or as the picture that `dot` draws. ValueError where `dot` fails."""
    text = dot_text(result, edges)
    with complete_or_absent(path) as beside:
        if path.suffix == ".dot":
            beside.write_text(text, encoding="utf-8")
            return
        try:
            subprocess.run(
                ["dot", f"-T{path.suffix[1:]}", "-o", str(beside)], input=text.encode(), check=True, capture_output=True
            )
        except subprocess.CalledProcessError as error:
            raise ValueError(f"dot could not draw {path}: {error.stderr.decode(errors='replace').strip()}") from error
