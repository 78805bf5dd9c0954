"""The work of `decomp score`: it opens corpus and model, scores windows, and writes the table."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from decomp.cli.common import made_now, say, silence_libraries
from decomp.cli.options import RUN_OPTIONS, input_of
from decomp.cli.running import Job, check_output_options, device_here, sample_of, say_plan
from decomp.corpus.article import Article
from decomp.corpus.articles import InputFormat, read_articles
from decomp.runs.plan import plan, written_pairs
from decomp.settings import scoring_settings
from decomp.tables.files import format_of
from decomp.tables.table import Table

if TYPE_CHECKING:
    from decomp.jobs import Scoring


@dataclass(frozen=True)
class ScoreJob(Job[Any]):
    """The work of one call of `decomp score`, and the job that computes it."""

    scoring: "Scoring"


NO_SETTINGS = {
    *("input_file", "text", "model", "input_format", "text_field", "id_field", "word_list", "output", "format_name"),
    *RUN_OPTIONS,
    *("batch_size", "overwrite", "quiet", "device", "plan"),
}
"""Options that are not settings of `scoring_settings`, or have another name there."""


def open_job(values: Mapping[str, Any]) -> ScoreJob:
    """Return the job that the command's options describe, its inputs read and checked."""
    source, name = input_of(values)
    articles = [Article(source)] if isinstance(source, str) else articles_of_input(source, values)
    settings = {option: value for option, value in values.items() if option not in NO_SETTINGS}
    checked = scoring_settings(articles, words=values["word_list"], device=device_here(values), **settings)
    check_output_options(values, (source if isinstance(source, Path) else None, values["word_list"], name))
    from decomp.jobs import contents, open_scoring  # imports torch

    silence_libraries()
    scoring = open_scoring(checked, name)
    if values["max_new_tokens"] is not None:
        (window,) = scoring.windows[:1]
        say(f"the model writes {window.article.text[len(articles[0].text) :]!r}", values["quiet"])
    made = {**made_now(scoring.model.about(), scoring.model.default_baseline), **contents(articles, scoring.windows)}
    return ScoreJob(scoring.work(values["batch_size"]), scoring.model, name, made, scoring)


def articles_of_input(path: Path, values: Mapping[str, Any]) -> list[Article]:
    """Return the articles of a file, read as the command's options say."""
    return read_articles(path, InputFormat(values["input_format"], values["text_field"], values["id_field"]))


def score_for_a_person(job: ScoreJob, values: Mapping[str, Any]) -> None:
    """Print the scores of a short text, coloured, on a person's terminal."""
    blocks = job.scoring.blocks_by_window(values["batch_size"])
    found = Table.from_blocks(job.scoring.columns, blocks, job.made)
    single = len(np.unique(found["position"])) == 1
    found.show(target="last" if single else None)
    say("the table itself: -o FILE, or --format tsv", values["quiet"])


def goes_to_a_person(values: Mapping[str, Any]) -> bool:
    """Return whether a text's scores go to a terminal and no format is given."""
    unsaid = values["output"] is None and values["format_name"] is None
    return values["text"] is not None and unsaid and on_terminal()


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    # A standard output that is closed (`>&-`) is None.
    return sys.stdout is not None and sys.stdout.isatty()


def show_plan(job: ScoreJob, values: Mapping[str, Any]) -> None:
    """Print what the job will take, estimated from one of its windows, and to standard output a script for Slurm."""
    windows, length = job.work.plan, job.scoring.scorer.request.decomposition_length
    by_tokens = partial(written_pairs, decomposition_length=length)
    pairs = attrgetter("pairs") if job.scoring.scorer.leading.has_groups else by_tokens
    found = plan(windows, sample_of(job), pairs)
    form = "parquet" if values["output"] is None else format_of(values["output"], values["format_name"])
    run = str(values["run_folder"] or "runs/score")
    say_plan(found, form, ("run_folder", "output", "format_name"), run=run)
    click.echo(f"# when all have ended: decomp table {run} -o {values['output'] or 'FILE.parquet'}")
