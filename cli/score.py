"""`decomp score`: corpus in, long table out."""

from typing import Any

from decomp.cli import layout, options


@layout.command(
    "score",
    """
    decomp score --text "The keys to the cabinet are on the table." demo-opt
    decomp score --text "The keys to the" --max-new-tokens 4 demo-opt --unit word
    echo "The keys to the cabinet are on the table." > keys.txt
    decomp score keys.txt demo-opt --measure delta_lp --measure attention --top 3 -o strongest.tsv
    """,
)
@options.file_or_text
@options.input_options
@options.results
@options.unit_options
@options.measure_options
@options.model_options
@options.window_options
@options.planned_run_options
@options.manners
def command(**values: Any) -> None:
    """Score every context token of every word of INPUT_FILE under MODEL.

    Writes one row per predicted token, source and measure: ΔLP by default, in bits. MODEL is a hub id, a
    folder, or a demo model. Every token is predicted once, in the window with the most context.

    INPUT_FILE is text with a line !ARTICLE before each article, other text (one article), a table with an
    article in each row, a folder of these, or - for standard input; .gz is unpacked. With --text instead,
    scores that text; with --max-new-tokens too, what the model writes next. On a terminal a text's scores are
    shown as decomp show does, unless --format is given.

    With --run, whatever stops the command, the same command goes on where it stopped; -o then makes the table
    from the run's parts when all are there, as decomp table does.
    """
    from decomp.cli.running import deliver
    from decomp.cli.scoring import goes_to_a_person, open_job, score_for_a_person, show_plan

    job = open_job(values)
    if values["plan"]:
        show_plan(job, values)
    elif values["run_folder"] is None and goes_to_a_person(values):
        score_for_a_person(job, values)
    else:
        deliver(job, values)
