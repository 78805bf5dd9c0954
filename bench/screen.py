"""Count how often the screen of `--strongest`, or one of its two rankings alone, names the sources with most ΔLP."""

from pathlib import Path

import click
import torch

import decomp
from decomp.measures.strongest import first_in_turn
from decomp.tables.table import Table

Sizes = dict[int, float]
"""Absolute scores by source."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.argument("model")
@click.option("--strongest", type=int, default=31, show_default=True, help="Sources that the screen hands on.")
@click.option("--top", type=int, default=5, show_default=True, help="Sources that ΔLP ranks first.")
@click.option("--min-sources", type=int, default=64, show_default=True)
def main(file: Path, model: str, strongest: int, top: int, min_sources: int) -> None:
    """Print how many of each prediction's top sources by ΔLP are among those that the screen names first."""
    loaded = decomp.load_model(model)
    exact = by_target(decomp.score(file, loaded))
    slopes, logits = (
        by_target(decomp.score(file, loaded, "first_order", function=name)) for name in ("log2_prob", "logit")
    )
    chosen = [target for target, sources in exact.items() if len(sources) >= min_sources]
    click.echo(f"{len(chosen)} targets of at least {min_sources} sources; top {top} by ΔLP among the first {strongest}")
    screens = {"log2_prob": (slopes,), "logit": (logits,), "both in turn, as --strongest": (slopes, logits)}
    for name, rankings in screens.items():
        named = [first(tuple(ranking[target] for ranking in rankings), strongest) for target in chosen]
        show(name, [exact[target] for target in chosen], named, top)


def show(name: str, exact: list[Sizes], named: list[set[int]], top: int) -> None:
    """Print one line: the share of the largest ΔLP that a screen names, and the largest that it misses."""
    largest = [first((sizes,), top) for sizes in exact]
    found = [len(of & among) for of, among in zip(largest, named, strict=True)]
    missed = [
        max((sizes[source] for source in of - among), default=0.0)
        for sizes, of, among in zip(exact, largest, named, strict=True)
    ]
    click.echo(
        f"{name}: {sum(found) / len(found) / top:.4f} of them, all for {found.count(top) / len(found):.4f} of the "
        f"targets; the largest ΔLP missed: {max(missed):.3f} bits, more than 1 bit for {sum(m > 1 for m in missed)}"
    )


def by_target(table: Table) -> dict[tuple[int, int], Sizes]:
    """Return the absolute scores of each prediction's sources that are tokens of the text."""
    found: dict[tuple[int, int], Sizes] = {}
    for row in table:
        if row.source_position is not None and row.source_position >= 0:
            found.setdefault((row.article, row.position), {})[row.source_position] = abs(row.score)
    return found


def first(rankings: tuple[Sizes, ...], count: int) -> set[int]:
    """Return the sources that rankings name first, in turn."""
    sources = sorted(rankings[0])
    sizes = [torch.tensor([ranking[source] for source in sources]) for ranking in rankings]
    chosen = first_in_turn(sizes, count).tolist()
    return {source for source, named in zip(sources, chosen, strict=True) if named}


if __name__ == "__main__":
    main()
