"""`decomp score` opens its corpus and model here, scores windows in this process or a pool, and writes the table."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from decomp.cli.common import begun, command_line, hush_libraries, open_model, say, table
from decomp.cli.options import input_of
from decomp.cli.pool import open_pool
from decomp.cli.running import cost_progress, locally, planned, request_of_run, work_through
from decomp.corpus.articles import Article, InputFormat, read_articles
from decomp.corpus.batches import in_batches
from decomp.corpus.windows import TokenisedWindow
from decomp.jobs import Scoring, open_scoring
from decomp.runs.cost import CostModel, cost_model
from decomp.runs.manifest import start_or_resume
from decomp.runs.outputs import FOLDER, is_own
from decomp.runs.parts import TableParts
from decomp.runs.plan import longest, plan, sample, written_pairs
from decomp.runs.planned import PlannedWindow
from decomp.runs.run import MANIFEST, Run, Shard
from decomp.runs.tables import write_table
from decomp.tables.blocks import Block
from decomp.tables.files import check_table, format_of
from decomp.tables.scoring import Scorer
from decomp.tables.table import Table

Compute = Callable[[list[TokenisedWindow]], Block]
"""From the windows of a batch to their piece of the table."""


@dataclass(frozen=True)
class Start:
    """How a process of a pool begins: it loads the model."""

    scorer: Scorer
    model: str
    dtype: str
    device: str
    revision: str | None

    def __call__(self) -> Compute:
        model, _ = open_model(self.model, self.dtype, self.device, self.revision)
        return partial(self.scorer.part, model)


@dataclass(frozen=True)
class Job:
    """One call of `decomp score`: what it scores, and what that will cost."""

    name: str
    """Of the model, as a process of a pool loads it."""
    scoring: Scoring
    cost: CostModel
    plan: Sequence[PlannedWindow]
    request: Mapping[str, Any]
    """How its table is made."""


ELSEWHERE = {
    *("input_file", "text", "model", "input_format", "text_field", "id_field", "word_list", "output", "format_name"),
    *(
        "run_folder",
        "shard",
        "engine",
        "num_workers",
        "ray_address",
        "batch_size",
        "overwrite",
        "quiet",
        "device",
        "plan",
    ),
}
"""Options that are no settings of `open_scoring`, or that it has by another name."""


def open_job(asked: Mapping[str, Any]) -> Job:
    """Return the job that the values of the command's options ask for, read and checked."""
    source, name = input_of(asked)
    form = InputFormat(asked["input_format"], asked["text_field"], asked["id_field"])
    articles = [Article(source)] if isinstance(source, str) else read_articles(source, form)
    check_run_options(asked["run_folder"], asked["shard"], asked["engine"], asked["overwrite"])
    check_output(asked, source, name)
    hush_libraries()
    # The workers of a pool may have devices that this process has not.
    device = "cpu" if asked["engine"] == "ray" else asked["device"]
    settings = {option: value for option, value in asked.items() if option not in ELSEWHERE}
    scoring = open_scoring(articles, name, words=asked["word_list"], device=device, **settings)
    if asked["max_new_tokens"] is not None:
        (window,) = scoring.windows[:1]
        say(f"the model writes {window.article.text[len(articles[0].text) :]!r}", asked["quiet"])
    cost = cost_model(scoring.model, scoring.scorer.request.decomposition_length)
    request = request_of_run(scoring.model, articles, scoring.windows)
    return Job(name, scoring, cost, planned(scoring.windows, cost), request)


def score_for_a_person(job: Job, asked: Mapping[str, Any]) -> None:
    """Show the scores of a short text on the terminal that a person looks at."""
    blocks = job.scoring.blocks_by_window(asked["batch_size"])
    found = Table.from_blocks(job.scoring.columns, blocks, job.request)
    single = len(np.unique(found["position"])) == 1
    found.show(target="last" if single else None)
    say("the table itself: -o FILE, or --format tsv", asked["quiet"])


def is_for_a_person(asked: Mapping[str, Any]) -> bool:
    """Return whether a text's scores would go to a terminal, and no format was asked for."""
    unsaid = asked["output"] is None and asked["format_name"] is None
    return asked["text"] is not None and unsaid and on_terminal()


def on_terminal() -> bool:
    """Return whether a person looks at standard output."""
    # A standard output that is closed (`>&-`) is None.
    return sys.stdout is not None and sys.stdout.isatty()


def score_into_table(job: Job, asked: Mapping[str, Any]) -> None:
    """Write rows as they are computed, into a file that is complete or absent, or standard output."""
    each = begun(job.scoring.blocks_by_window(asked["batch_size"]))
    with (
        table(asked["output"], asked["format_name"], job.scoring.columns, job.request) as write,
        cost_progress(job.plan, range(len(job.plan)), asked["quiet"]) as bar,
    ):
        for number, block in enumerate(each):
            write(block)
            bar.advance([number])


def score_in_run(job: Job, asked: Mapping[str, Any]) -> None:
    """Compute parts into a run's folder, in this process or a pool, and write the table once all are there."""
    output, quiet, shard, engine = asked["output"], asked["quiet"], asked["shard"], asked["engine"]
    scoring, scorer = job.scoring, job.scoring.scorer
    positions = scoring.model.max_length()
    wanted = Run(
        asked["run_folder"],
        job.request,
        job.plan,
        in_batches([window.tokens for window in job.plan], asked["batch_size"], positions),
        unit_cost=job.cost(positions),
        store=TableParts(scorer.columns, len(job.plan)),
    )
    run = start_or_resume(wanted, asked["overwrite"])
    if engine == "ray":
        start = Start(scorer, job.name, asked["dtype"], asked["device"], asked["revision"])
        with open_pool(asked["ray_address"], asked["num_workers"], asked["device"]) as pool:
            say(f"{pool.workers} workers of {pool.threads} threads each", quiet)
            work = partial(pool.run, start, scoring.windows)
            work_through(run, shard, work, quiet, engine=engine, workers=pool.workers, threads=pool.threads)
    else:
        part = partial(scorer.part, scoring.model)
        work_through(run, shard, locally(scoring.windows, part), quiet, engine=engine, threads=torch.get_num_threads())
    finish(run, output, format_of(output, asked["format_name"]), quiet)


def say_plan(job: Job, asked: Mapping[str, Any]) -> None:
    """Show what the job will take, by one of its windows, and on standard output a script for Slurm."""
    number, length = longest(job.plan), job.scoring.scorer.request.decomposition_length
    part = partial(job.scoring.scorer.part, job.scoring.model, [job.scoring.windows[number]])
    found = plan(job.plan, sample(job.plan[number], part), partial(written_pairs, decomposition_length=length))
    click.echo("\n".join(found.lines()), err=True)
    form = "parquet" if asked["output"] is None else format_of(asked["output"], asked["format_name"])
    if warning := found.warning(form):
        click.echo(f"Warning: {warning}", err=True)
    run = str(asked["run_folder"] or "runs/score")
    context = click.get_current_context()
    click.echo(found.sbatch(command_line(context, ("plan", "shard", "run_folder", "output", "format_name"), run=run)))
    click.echo(f"# when all have ended: decomp table {run} -o {asked['output'] or 'FILE.parquet'}")


def check_output(asked: Mapping[str, Any], source: Path | str, model: str) -> None:
    """Raise ValueError for an output that can't be written or must not be, before anything is computed."""
    output, run = asked["output"], asked["run_folder"]
    inputs = [source if isinstance(source, Path) else None, asked["word_list"], model]
    if run is not None:
        inputs += [run / MANIFEST, run / "parts", run / "journal", run / FOLDER]
    overwrite = asked["overwrite"] or is_own(run, output)
    check_table(output, asked["format_name"], inputs=inputs, overwrite=overwrite)


def check_run_options(run_folder: Path | None, shard: Shard, engine: str, overwrite: bool) -> None:
    """Raise ValueError for what only runs can do, or several processes can't."""
    if run_folder is None and (engine != "local" or shard.count > 1):
        raise ValueError("--shard and --engine ray need a folder for their parts: give --run")
    if overwrite and shard.count > 1:
        raise ValueError("--overwrite would remove what the other shards compute: remove the folder of --run first")


def finish(run: Run, output: Path | None, format_name: str, quiet: bool) -> None:
    """Make the table if all parts are there; say what is missing otherwise."""
    missing = len(run.windows) - len(run.done())
    if missing:
        say(f"{missing} of {len(run.windows)} windows are left to other shards: decomp status {run.folder}", quiet)
    elif output is None:
        say(f"all {len(run.windows)} windows are done: decomp table {run.folder} -o FILE makes one table", quiet)
    else:
        write_table(run, output, format_name)
