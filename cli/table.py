"""`decomp table`: tables converted, merged, thinned out, summarised."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from decomp.cli import kinds, layout, options


@layout.command(
    "table",
    """
    decomp score --text "The keys to the cabinet are on the table." demo-opt --unit word -o keys.parquet
    decomp table keys.parquet --top 3 --min-abs 0.1
    decomp table keys.parquet --summary -o summary.csv
    """,
)
@click.argument("tables", nargs=-1, required=True, type=kinds.INPUT)
@options.output_section()
@options.reduction_options
@layout.section(
    "One row for many",
    click.option("--summary", is_flag=True, help="One row per target, to start a regression from."),
    click.option(
        "--predictors", is_flag=True, help="One row per word, with predictors for regressions of reading times."
    ),
    options.whole_number("--distal", "Sources further back are distal.", 10, least=0),
    options.whole_number("--spillover", "Add the predictors of so many words before.", 0, least=0, most=9),
    click.option("--frequency", metavar="LANGUAGE", help="Add word frequencies (Zipf scale), such as en."),
)
@layout.section(
    "Joined tables",
    click.option(
        "--join",
        "other",
        type=kinds.INPUT,
        help="Add the columns of each word to the rows of this table (.csv, .tsv, .parquet).",
    ),
    click.option(
        "--on",
        "keys",
        multiple=True,
        metavar="THEIRS=OURS[+N]",
        shell_complete=kinds.columns_of("other", end="="),
        help="Columns of --join and of the table whose values are equal, the table's shifted: zone=word+1.",
    ),
    click.option(
        "--on-word",
        metavar="THEIRS",
        shell_complete=kinds.columns_of("other"),
        help="Column of --join with the words, to be compared with the table's.",
    ),
    click.option(
        "--mixed", is_flag=True, help="Merge tables of other models (named in a column model), corpora or options, too."
    ),
)
@options.manners
def command(
    tables: tuple[Path, ...],
    output: Path | None,
    format_name: str | None,
    summary: bool,
    predictors: bool,
    distal: int,
    spillover: int,
    frequency: str | None,
    other: Path | None,
    keys: tuple[str, ...],
    on_word: str | None,
    mixed: bool,
    overwrite: bool,
    quiet: bool,
    **kept: Any,
) -> None:
    """Convert, merge, reduce and summarise TABLES.

    Tables are those of decomp score; several are merged, by article and window. Reads and writes TSV, CSV, JSONL
    and Parquet (by suffix; .gz is unpacked), as a stream. The folder of a run (decomp score --run) is the table of
    all its parts. Rows that are no token (<bias>) and those of the beginning-of-sequence token stay whatever is
    left out, and are none of the sources that --top counts; the others that are left out have a row <dropped> with
    their sum. A summary has per target and measure the surprisal (and what --entropy and --corrected of decomp
    score added), the source of the highest score among those kept (never the beginning-of-sequence token, which has
    its own columns), its distance, and the bias; shares are of the sum of all absolute scores of the table, kept or
    not.

    \b
    Predictors are, per word (of decomp score --unit word) and measure:
      surprisal, corrected_surprisal, entropy   bits, as decomp score was asked
      length, sentence, position_in_sentence    characters; from 0
      distal_max, distal_sum                    of scores from beyond --distal
      mean_distance                             weighted by absolute score
      score_entropy, normalised_entropy         of the shares of sources, bits
      bos_share, bias_share                     of all absolute scores
      entropy_change, manhattan                 from the word before

    --join gives each row of readers the predictors of its word (or the summary): articles and words are counted
    from 0 here, so that --on item=article+1 --on zone=word+1 fits a table that counts from 1. Columns whose names
    are in both tables begin with decomp_.
    """
    from decomp.cli.common import say
    from decomp.cli.common import table as table_to
    from decomp.runs.tables import open_table_or_run, other_table
    from decomp.tables.blocks import block_of, concatenate
    from decomp.tables.files import check_table
    from decomp.tables.joining import join, parse_key, read_other
    from decomp.tables.operations import merge, with_models
    from decomp.tables.predictors import Predictors, zipf_frequency
    from decomp.tables.provenance import check_alike, made_together
    from decomp.tables.reduction import Reduction, rounded
    from decomp.tables.summary import summarise, summary_columns, warn_of_thinned

    reduction = Reduction(**kept)
    if not (predictors or summary or other or reduction.drops) and (single := other_table(tables)) is not None:
        check_table(output, format_name, inputs=tables, overwrite=overwrite)
        with table_to(output, format_name, single.columns, single.made()) as write:
            for block in single.blocks():
                write(block if kept["digits"] is None else rounded(block, kept["digits"]))
        return
    if predictors and (summary or reduction.drops):
        raise ValueError("--predictors are of all sources: leave out --summary, --top and the others")
    if other is not None and not (predictors or summary):
        raise ValueError("--join is for one row per word: give --predictors or --summary")
    if (keys or on_word) and other is None:
        raise ValueError("--on and --on-word say how to join: give --join")
    of_words = Predictors(distal, spillover, zipf_frequency(frequency) if frequency else None)
    on = [parse_key(key) for key in keys]
    opened = [open_table_or_run(path) for path in tables]
    check_table(output, format_name, inputs=(*tables, other), overwrite=overwrite)
    made = [table.made() for table in opened]
    if not mixed:
        check_alike(list(zip(tables, made, strict=True)))
    opened = with_models(opened, made)
    columns = reduction.columns(opened[0].columns)
    done = {name: value for name, value in {**kept, "summary": summary, "predictors": predictors}.items() if value}
    made_of_all = made_together(made, done)
    blocks = merge(opened)
    if summary or predictors:
        warn_of_thinned(list(zip(tables, made, strict=True)))
        columns = summary_columns(columns) if summary else of_words.columns(columns)
        blocks = summarise(blocks, reduction) if summary else of_words(blocks)
    if (summary or predictors) and kept["digits"] is not None:
        blocks = map(partial(rounded, digits=kept["digits"]), blocks)
    if other is not None:
        joined = join(read_other(other), concatenate([block_of(columns, []), *blocks]), on, on_word)
        say(joined.report(), quiet)
        columns, blocks = tuple(joined.block), iter([joined.block])
    with table_to(output, format_name, columns, made_of_all) as write:
        for block in blocks if summary or predictors else map(reduction, blocks):
            write(block)
