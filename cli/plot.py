"""`decomp plot`: a table, as a picture."""

from pathlib import Path

import click

from decomp.cli import kinds, layout, options

KINDS = ("heat", "arcs", "bars", "distance", "agreement", "layers", "neurons")


@layout.command(
    "plot",
    """
    decomp score --text "The keys to the cabinet are on the table." demo-opt -o keys.tsv
    decomp plot keys.tsv -o keys.png
    decomp plot keys.tsv --kind bars --target 5 -o bars.svg
    """,
)
@click.argument("table", type=kinds.INPUT)
@layout.section(
    "What is drawn",
    click.option("-o", "--output", type=options.FILE, required=True, help="Picture: .png, .svg or .pdf."),
    options.choice("--kind", KINDS, None, "Kind of picture.  [default: heat, or that of the table]"),
    click.option(
        "--measure",
        shell_complete=kinds.MEASURE.complete,
        help="Measure of the table.  [default: its first; all for distance]",
    ),
    click.option(
        "--article", "articles", type=int, multiple=True, help="Draw this article, from 0.  [default: the first]"
    ),
    options.option(
        "--target",
        type=options.article_position,
        metavar="POSITION|last",
        default="last",
        help="Token whose bars are drawn: its position in its article, from 0.",
    ),
    options.whole_number("--top", "Number of bars, one for each source.", 15),
    options.whole_number("--min-distance", "Draw sources at least so many tokens (words) back.", 1),
    click.option("--hide-bos", is_flag=True, help="Leave the beginning-of-sequence token out."),
    options.seed,
)
@options.manners
def command(
    table: Path,
    output: Path,
    kind: str | None,
    measure: str | None,
    articles: tuple[int, ...],
    target: int | str,
    top: int,
    min_distance: int,
    hide_bos: bool,
    seed: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Draw what predictions rest on, or where in the network it sits.

    TABLE is a table of decomp score or contrast, a run's folder, or a stored decomposition: heat (predicted tokens
    against sources), arcs (over a short text), bars (one token's sources), distance (how scores decay, with 95 %
    bootstrap intervals). The tables of decomp evaluate agreement, layers and neurons make a picture of their own
    each. Colours are centred at zero and full from the 97th percentile on. Needs matplotlib (the extra plot).
    """
    from decomp.cli.progress import say_wrote
    from decomp.io.files import check_outputs
    from decomp.report.plots import check_picture, save_picture
    from decomp.report.plotting import picture_of

    check_picture(output)
    check_outputs([output], [table], overwrite)
    values = {"measure": measure, "target": target, "top": top, "min_distance": min_distance, "hide_bos": hide_bos}
    save_picture(picture_of(table, kind, articles, **values, seed=seed), output)
    say_wrote(output)
