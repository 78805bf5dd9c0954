"""The work of `decomp decompose`: it starts or resumes a run whose windows are decomposed and stored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from decomp.cli.common import made_now, open_model, say
from decomp.cli.progress import amount, say_wrote
from decomp.cli.running import Job, sample_of, say_plan, work_through
from decomp.cli.scoring import articles_of_input
from decomp.corpus.article import Article
from decomp.corpus.articles import corpus_name
from decomp.corpus.batches import in_batches
from decomp.corpus.source_kinds import check_segments
from decomp.io.amounts import format_bytes
from decomp.io.files import check_output_folder
from decomp.runs.manifest import start_or_resume
from decomp.runs.plan import plan_of_files
from decomp.runs.run import Run
from decomp.tables.blocks import Block
from decomp.tables.work import Work

if TYPE_CHECKING:
    from decomp.core.decomposition import Decomposition
    from decomp.corpus.windows import TokenisedWindow
    from decomp.models.base import DecomposedModel
    from decomp.runs.decomposition_files import DecompositionFiles

Numbered = tuple[int, "TokenisedWindow"]
Keep = Callable[[int, "Decomposition", "TokenisedWindow"], None]
"""A function that stores a decomposition, called with the window's number, the decomposition, and the window."""


@dataclass(frozen=True)
class StoringJob:
    """The inputs of one call of `decomp decompose`, and the files that it writes."""

    model: "DecomposedModel"
    articles: Sequence[Article]
    windows: Sequence["TokenisedWindow"]
    files: "DecompositionFiles"


def open_job(values: Mapping[str, Any]) -> StoringJob:
    """Return the inputs and files that the command's options describe, read and checked."""
    articles = articles_of_input(values["input_file"], values)
    if values["format_name"] == "pt" and values["sources"] not in (None, "token"):
        raise ValueError("the .pt format has tokens for sources, not groups of them: leave out --format pt")
    if values["overwrite"] and values["shard"].count > 1:
        raise ValueError("--overwrite would remove what the other shards write: remove the files first")
    check_segments(values["sources"], articles)
    check_output_folder(values["output_dir"])
    from decomp.jobs import open_windows  # imports torch
    from decomp.models.architecture import model_label
    from decomp.models.checks import parse_dtype
    from decomp.runs.decomposition_files import DecompositionFiles

    model, tokenizer = open_model(values["model"], values["dtype"], values["device"], values["revision"])
    windows = open_windows(articles, model, tokenizer, values["stride"], values["bos"])
    files = DecompositionFiles(
        values["output_dir"],
        corpus_name(values["input_file"]),
        model_label(values["model"]),
        values["format_name"],
        parse_dtype(values["store_dtype"] or values["dtype"]),
    )
    if not values["plan"]:
        files.prepare(len(windows), values["overwrite"])
    return StoringJob(model, articles, windows, files)


def job_of(storing: StoringJob, values: Mapping[str, Any], keep: Keep | None = None) -> Job[Numbered]:
    """Return the job that decomposes the windows, and stores each with `keep`, by default in files."""
    from decomp.jobs import contents
    from decomp.runs.cost import cost_model, work_items

    model, windows = storing.model, storing.windows
    cost = cost_model(model, values["decomposition_length"], with_logits=False)
    plan = work_items(windows, cost, values["sources"])
    made = {**made_now(model.about(), model.default_baseline), **contents(storing.articles, windows)}
    batches = in_batches([window.tokens for window in plan], values["batch_size"], model.max_length())
    options = {name: values[name] for name in ("decomposition_length", "activation_rule", "gate_rule", "memory")}
    compute = partial(decompose_and_keep, keep or storing.files.write, options, values["sources"])
    work = Work("window", list(enumerate(windows)), plan, batches, compute, ())
    return Job(work, model, values["model"], {**made, "format": values["format_name"]})


def run_of(storing: StoringJob, job: Job[Numbered]) -> Run:
    """Return the run that stores the decompositions."""
    work, files = job.work, storing.files
    return Run(files.run_folder(), job.made, work.what, work.plan, work.batches, work.unit_cost, files.window_files())


def store(storing: StoringJob, values: Mapping[str, Any]) -> None:
    """Decompose and store the rest of a run, or of this command's shard of it."""
    job, shard = job_of(storing, values), values["shard"]
    wanted = run_of(storing, job)
    left = [job.work.plan[number] for number in wanted.left(shard)]
    size = storing.files.size(left, values["decomposition_length"], storing.model.unembedding())
    tokens = sum(window.tokens for window in left)
    where = f"{format_bytes(size)} will be written to {values['output_dir']}"
    say(f"{len(left)} windows, {tokens} tokens; {where}", values["quiet"])
    storing.files.refuse_full_disk(size)
    work_through(start_or_resume(wanted, values["overwrite"]), shard, job, values)
    say_wrote(values["output_dir"], amount(len(left), "window"))


def show_plan(storing: StoringJob, values: Mapping[str, Any]) -> None:
    """Print what the job will take, estimated from one window that is decomposed, and a script for Slurm."""
    files, unembedding = storing.files, storing.model.unembedding()
    job = job_of(storing, values, keep=forget)
    size = files.size(job.work.plan, values["decomposition_length"], unembedding)
    found = plan_of_files(job.work.plan, sample_of(job), {files.format_name: size})
    say_plan(found, files.format_name)
    click.echo(f"# when all have ended: decomp deltalp {files.corpus}_{files.model} {values['model']}")


def forget(number: int, result: "Decomposition", window: "TokenisedWindow") -> None:
    """Do nothing with a decomposition."""


def decompose_and_keep(
    keep: Keep, options: Mapping[str, Any], sources: str | None, model: Any, batch: Sequence[Numbered]
) -> Block:
    """Decompose the windows of a batch, and pass each result to `keep`."""
    from decomp.core.partition import Partition
    from decomp.measures.windows import partition_of

    ids = [window.ids.to(model.device) for _, window in batch]
    found = (partition_of(window, sources) for _, window in batch)
    partitions = [own or Partition.tokens(len(each)) for own, each in zip(found, ids, strict=True)]
    results = model.decompose_batch(ids, sources=partitions, **options)
    for (number, window), result in zip(batch, results, strict=True):
        keep(number, result, window)
    return {}
