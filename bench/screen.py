"""How often the first-order screen ranks the sources with the largest ΔLP among the first."""

from pathlib import Path

import click

import decomp
from decomp.tables.table import Table


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.argument("model")
@click.option("--strongest", type=int, default=31, show_default=True, help="Sources that the screen hands on.")
@click.option("--top", type=int, default=5, show_default=True, help="Sources that ΔLP ranks first.")
@click.option("--min-sources", type=int, default=64, show_default=True)
def main(file: Path, model: str, strongest: int, top: int, min_sources: int) -> None:
    """Print how many of each prediction's top sources by ΔLP are among those that first_order ranks first."""
    table = decomp.score(file, model, ("delta_lp", "first_order"))
    exact, screen = (by_target(table, measure) for measure in ("delta_lp", "first_order"))
    chosen = [target for target, sources in exact.items() if len(sources) >= min_sources]
    found = [len(largest(exact[t], top) & largest(screen[t], strongest)) for t in chosen]
    missed = [
        abs(exact[t][source]) for t in chosen for source in largest(exact[t], top) - largest(screen[t], strongest)
    ]
    click.echo(
        f"{len(chosen)} targets of at least {min_sources} sources; top {top} by ΔLP among the first {strongest}: "
        f"{sum(found) / len(found) / top:.4f} of them, all for {found.count(top) / len(found):.4f} of the targets; "
        f"the largest ΔLP missed: {max(missed, default=0):.3f} bits"
    )


def by_target(table: Table, measure: str) -> dict[tuple[int, int], dict[int, float]]:
    """Return the scores of each prediction's sources that are tokens of the text."""
    found: dict[tuple[int, int], dict[int, float]] = {}
    for row in table:
        if row.measure == measure and row.source_position is not None and row.source_position >= 0:
            found.setdefault((row.article, row.position), {})[row.source_position] = row.score
    return found


def largest(scores: dict[int, float], count: int) -> set[int]:
    """Return the sources with the largest absolute scores."""
    return set(sorted(scores, key=lambda source: -abs(scores[source]))[:count])


if __name__ == "__main__":
    main()
