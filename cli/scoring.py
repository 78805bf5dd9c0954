"""What `decomp score` does: of a batch of windows, in this process or those of a pool, and of all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from decomp.cli.common import let_write, open_model, open_windows, say, table
from decomp.cli.options import input_of, request_of
from decomp.cli.pool import open_pool
from decomp.cli.running import cost_progress, locally, planned, request_of_run, work_through
from decomp.corpus.articles import Article, InputFormat, read_articles
from decomp.corpus.batches import in_batches
from decomp.corpus.windows import TokenisedWindow, only_target
from decomp.corpus.words import check_white_space, read_words
from decomp.measures import Measure, Request
from decomp.measures.registry import check_foils
from decomp.measures.surprisal import begins_word
from decomp.measures.windows import check_predicted
from decomp.models.base import DecomposedModel
from decomp.runs.cost import CostModel, cost_model
from decomp.runs.manifest import start_or_resume
from decomp.runs.outputs import FOLDER, is_own
from decomp.runs.run import MANIFEST, PlannedWindow, Run, Shard, TableParts
from decomp.runs.tables import write_table
from decomp.tables.files import check_table, format_of
from decomp.tables.front import Front
from decomp.tables.scoring import Scorer

Compute = Callable[[list[TokenisedWindow]], bytes]
"""From the windows of a batch to their piece of the table."""


@dataclass(frozen=True)
class Start:
    """How a process of a pool begins: it loads the model."""

    scorer: Scorer
    format_name: str
    model: str
    dtype: str
    device: str
    revision: str | None

    def __call__(self) -> Compute:
        model, _ = open_model(self.model, self.dtype, self.device, self.revision)
        return partial(self.scorer.part, model, self.format_name)


@dataclass(frozen=True)
class Job:
    """What `decomp score` was asked, opened: `asked` below is the values of its options."""

    model: DecomposedModel
    name: str
    """Of the model, as a process of a pool loads it."""
    windows: list[TokenisedWindow]
    scorer: Scorer
    cost: CostModel
    plan: Sequence[PlannedWindow]
    request: Mapping[str, Any]
    """How its table is made."""


def open_job(asked: Mapping[str, Any]) -> Job:
    """Input, measures, model and windows; all that can be refused without the model is refused before it is loaded."""
    source, name = input_of(asked)
    form = InputFormat(asked["input_format"], asked["text_field"], asked["id_field"])
    articles = [Article(source)] if isinstance(source, str) else read_articles(source, form)
    words = None if asked["word_list"] is None else read_words(asked["word_list"], articles)
    measures, request = request_of(asked)
    check_foils(request.function, given=False)
    check_units(measures, request, asked)
    if asked["corrected"] and words is not None:
        check_white_space(articles, words)
    check_run_options(asked["run_folder"], asked["shard"], asked["engine"], asked["overwrite"])
    check_output(asked, source, name)
    # The workers of a pool may have devices that this process has not.
    device = "cpu" if asked["engine"] == "ray" else asked["device"]
    model, tokenizer = open_model(name, asked["dtype"], device, asked["revision"])
    windows = windows_asked(articles, words, model, tokenizer, asked)
    boundaries = begins_word(tokenizer, len(model.unembedding().weight)) if asked["corrected"] else None
    front = Front(asked["unit"], asked["span"], any(a.id for a in articles), asked["entropy"], boundaries)
    cost = cost_model(model, request.decomposition_length)
    scorer = Scorer(measures, request.with_token_ids(tokenizer), front)
    made = request_of_run(part_format(asked["output"], asked["format_name"]), model, articles, windows)
    return Job(model, name, windows, scorer, cost, planned(windows, cost), made)


def windows_asked(
    articles: Sequence[Article], words: Any, model: DecomposedModel, tokenizer: Any, asked: Mapping[str, Any]
) -> list[TokenisedWindow]:
    """All windows of the articles, what the model writes after them, or what predicts one target."""
    units = {"words": words, "unit": asked["unit"], "span": asked["span"]}
    windows = open_windows(articles, model, tokenizer, asked["stride"], asked["bos"], **units)
    if asked["max_new_tokens"] is not None:
        windows = [let_write(windows, model, tokenizer, asked, asked["quiet"])]
    windows = windows if asked["target"] is None else only_target(windows, asked["target"])
    check_predicted(windows, asked["unit"], asked["span"])
    return windows


def score_into_table(job: Job, asked: Mapping[str, Any]) -> None:
    """Rows as they are computed, into a file that is complete or absent, or standard output."""
    front, windows = job.scorer.front, range(len(job.windows))
    each = job.scorer.rows_by_window(job.model, job.windows, asked["batch_size"])
    # What a measure refuses, it refuses at the first window: before the header is out.
    each = chain(list(islice(each, 1)), each)
    with (
        table(asked["output"], asked["format_name"], front.columns, job.request) as write,
        cost_progress(job.plan, windows, asked["quiet"]) as bar,
    ):
        for number, rows in enumerate(each):
            write(rows)
            bar.advance([number])


def score_in_run(job: Job, asked: Mapping[str, Any]) -> None:
    """Parts in a run's folder, by this process or a pool, and the table once all are there."""
    output, quiet, shard, engine = asked["output"], asked["quiet"], asked["shard"], asked["engine"]
    suffix = part_format(output, asked["format_name"])
    positions = job.model.max_length()
    wanted = Run(
        asked["run_folder"],
        job.request,
        job.plan,
        in_batches([window.tokens for window in job.plan], asked["batch_size"], positions),
        unit_cost=job.cost(positions),
        store=TableParts(job.scorer.header(suffix), f".{suffix}"),
    )
    run = start_or_resume(wanted, asked["overwrite"])
    if engine == "ray":
        start = Start(job.scorer, suffix, job.name, asked["dtype"], asked["device"], asked["revision"])
        with open_pool(asked["ray_address"], asked["num_workers"], asked["device"]) as pool:
            say(f"{pool.workers} workers of {pool.threads} threads each", quiet)
            work = partial(pool.run, start, job.windows)
            work_through(run, shard, work, quiet, engine=engine, workers=pool.workers, threads=pool.threads)
    else:
        part = partial(job.scorer.part, job.model, suffix)
        work_through(run, shard, locally(job.windows, part), quiet, engine=engine, threads=torch.get_num_threads())
    finish(run, output, format_of(output, asked["format_name"]), quiet)


def check_units(measures: Sequence[Measure], request: Request, asked: Mapping[str, Any]) -> None:
    """ValueError for what is not defined for words and spans, or for tokens."""
    if asked["corrected"] and asked["unit"] == "token":
        raise ValueError("--corrected is for words: give --unit word")
    if asked["unit"] == "token" and request.span == 1:
        return
    if asked["target"] is not None:
        raise ValueError("--target scores a single token: leave out --unit word and --span")
    for measure in measures:
        measure.check_together(request, asked["unit"] == "word")


def check_output(asked: Mapping[str, Any], source: Path | str, model: str) -> None:
    """ValueError for an output that can't be written or must not be, before anything is computed."""
    output, run = asked["output"], asked["run_folder"]
    inputs = [source if isinstance(source, Path) else None, asked["word_list"], model]
    if run is not None:
        inputs += [run / MANIFEST, run / "parts", run / "journal", run / FOLDER]
    overwrite = asked["overwrite"] or is_own(run, output)
    check_table(output, asked["format_name"], inputs=inputs, overwrite=overwrite)


def check_run_options(run_folder: Path | None, shard: Shard, engine: str, overwrite: bool) -> None:
    """ValueError for what only runs can do, or several processes can't."""
    if run_folder is None and (engine != "local" or shard.count > 1):
        raise ValueError("--shard and --engine ray need a folder for their parts: give --run")
    if overwrite and shard.count > 1:
        raise ValueError("--overwrite would remove what the other shards compute: remove the folder of --run first")


def part_format(output: Path | None, format_name: str | None) -> str:
    """Of a run's parts: those of a Parquet table are TSV."""
    name = format_of(output, format_name)
    return "tsv" if name == "parquet" else name


def finish(run: Run, output: Path | None, format_name: str, quiet: bool) -> None:
    """Make the table if all parts are there; say what is missing otherwise."""
    missing = len(run.windows) - len(run.done())
    if missing:
        say(f"{missing} of {len(run.windows)} windows are left to other shards: decomp status {run.folder}", quiet)
    elif output is None:
        say(f"all {len(run.windows)} windows are done: decomp table {run.folder} -o FILE makes one table", quiet)
    else:
        write_table(run, output, format_name)
