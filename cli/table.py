"""`decomp table`: tables converted, merged, thinned out, summarised."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import kinds, layout, options

if TYPE_CHECKING:
    from decomp.tables.conversion import Conversion


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
    tables: tuple[Path, ...], output: Path | None, format_name: str | None, overwrite: bool, quiet: bool, **values: Any
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
    from decomp.tables.conversion import converted, joined, rounded_table
    from decomp.tables.files import check_table
    from decomp.tables.joining import parse_key, read_other

    check_join(values)
    conversion, keys, other = conversion_of(values), [parse_key(key) for key in values["keys"]], values["other"]
    keeps_rows = not (conversion.has_one_row or conversion.reduction.drops)
    single = other_table(tables) if keeps_rows else None
    opened = [] if single else [open_table_or_run(path) for path in tables]
    check_table(output, format_name, inputs=(*tables, other), overwrite=overwrite)
    if single is not None:
        found = rounded_table(single, conversion.reduction.digits)
    else:
        found = converted(tables, opened, conversion, values["mixed"])
    if other is not None:
        matched = joined(found, read_other(other), keys, values["on_word"])
        say(matched.report(), quiet)
        found = found._replace(columns=tuple(matched.block), blocks=[matched.block])
    with table_to(output, format_name, found.columns, found.made) as write:
        for block in found.blocks:
            write(block)


def check_join(values: Mapping[str, Any]) -> None:
    """Raise ValueError for options of a join that don't go together."""
    if values["other"] is not None and not (values["predictors"] or values["summary"]):
        raise ValueError("--join is for one row per word: give --predictors or --summary")
    if (values["keys"] or values["on_word"]) and values["other"] is None:
        raise ValueError("--on and --on-word say how to join: give --join")


def conversion_of(values: Mapping[str, Any]) -> "Conversion":
    """Return the change of rows that the command's options describe. ValueError for options that don't go together."""
    from decomp.cli.common import reduction_of
    from decomp.tables.conversion import Conversion
    from decomp.tables.predictors import Predictors, zipf_frequency

    language = values["frequency"]
    frequency = zipf_frequency(language) if language else None
    predictors = Predictors(values["distal"], values["spillover"], frequency)
    return Conversion(reduction_of(values), values["summary"], predictors if values["predictors"] else None)
