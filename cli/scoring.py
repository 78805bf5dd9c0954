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

from decomp.cli.common import hush_libraries, made_now, say
from decomp.cli.options import RUN_OPTIONS, input_of
from decomp.cli.running import Job, check_asked, device_here, sample_of, say_plan
from decomp.corpus.article import Article
from decomp.corpus.articles import InputFormat, read_articles
from decomp.runs.plan import plan, written_pairs
from decomp.tables.files import format_of
from decomp.tables.table import Table

if TYPE_CHECKING:
    from decomp.jobs import Scoring


@dataclass(frozen=True)
class ScoreJob(Job[Any]):
    """The work of one call of `decomp score`, and the job that computes it."""

    scoring: "Scoring"


ELSEWHERE = {
    *("input_file", "text", "model", "input_format", "text_field", "id_field", "word_list", "output", "format_name"),
    *RUN_OPTIONS,
    *("batch_size", "overwrite", "quiet", "device", "plan"),
}
"""Options that are not settings of `open_scoring`, or have another name there."""


def open_job(asked: Mapping[str, Any]) -> ScoreJob:
    """Return the job that the command's options describe, its inputs read and checked."""
    source, name = input_of(asked)
    articles = [Article(source)] if isinstance(source, str) else articles_asked(source, asked)
    check_asked(asked, (source if isinstance(source, Path) else None, asked["word_list"], name))
    from decomp.jobs import contents, open_scoring  # imports torch

    hush_libraries()
    settings = {option: value for option, value in asked.items() if option not in ELSEWHERE}
    scoring = open_scoring(articles, name, words=asked["word_list"], device=device_here(asked), **settings)
    if asked["max_new_tokens"] is not None:
        (window,) = scoring.windows[:1]
        say(f"the model writes {window.article.text[len(articles[0].text) :]!r}", asked["quiet"])
    made = {**made_now(scoring.model.about(), scoring.model.default_baseline), **contents(articles, scoring.windows)}
    return ScoreJob(scoring.work(asked["batch_size"]), scoring.model, name, made, scoring)


def articles_asked(path: Path, asked: Mapping[str, Any]) -> list[Article]:
    """Return the articles of a file, read as the command's options say."""
    return read_articles(path, InputFormat(asked["input_format"], asked["text_field"], asked["id_field"]))


def score_for_a_person(job: ScoreJob, asked: Mapping[str, Any]) -> None:
    """Print the scores of a short text, coloured, on a person's terminal."""
    blocks = job.scoring.blocks_by_window(asked["batch_size"])
    found = Table.from_blocks(job.scoring.columns, blocks, job.made)
    single = len(np.unique(found["position"])) == 1
    found.show(target="last" if single else None)
    say("the table itself: -o FILE, or --format tsv", asked["quiet"])


def is_for_a_person(asked: Mapping[str, Any]) -> bool:
    """Return whether a text's scores go to a terminal and no format is given."""
    unsaid = asked["output"] is None and asked["format_name"] is None
    groups = asked["sources"] not in (None, asked["unit"])
    return asked["text"] is not None and unsaid and not groups and on_terminal()


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    # A standard output that is closed (`>&-`) is None.
    return sys.stdout is not None and sys.stdout.isatty()


def show_plan(job: ScoreJob, asked: Mapping[str, Any]) -> None:
    """Print what the job will take, estimated from one of its windows, and to standard output a script for Slurm."""
    windows, length = job.work.plan, job.scoring.scorer.request.decomposition_length
    by_tokens = partial(written_pairs, decomposition_length=length)
    pairs = attrgetter("pairs") if job.scoring.scorer.front.has_groups else by_tokens
    found = plan(windows, sample_of(job), pairs)
    form = "parquet" if asked["output"] is None else format_of(asked["output"], asked["format_name"])
    run = str(asked["run_folder"] or "runs/score")
    say_plan(found, form, ("run_folder", "output", "format_name"), run=run)
    click.echo(f"# when all have ended: decomp table {run} -o {asked['output'] or 'FILE.parquet'}")
