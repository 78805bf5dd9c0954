"""The work of `decomp decompose`: it starts or resumes a run whose windows are decomposed and stored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from decomp.cli.common import made_now, open_model, say
from decomp.cli.progress import amount, say_wrote
from decomp.cli.running import Job, sample_of, say_plan, work_through
from decomp.cli.scoring import articles_asked
from decomp.corpus.article import Article
from decomp.corpus.articles import corpus_name
from decomp.corpus.batches import in_batches
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
class Storing:
    """The inputs of one call of `decomp decompose`, and the files that it writes."""

    model: "DecomposedModel"
    articles: Sequence[Article]
    windows: Sequence["TokenisedWindow"]
    files: "DecompositionFiles"


def open_job(asked: Mapping[str, Any]) -> Storing:
    """Return the inputs and files that the command's options describe, read and checked."""
    articles = articles_asked(asked["input_file"], asked)
    if asked["format_name"] == "pt" and asked["sources"] not in (None, "token"):
        raise ValueError("the .pt format has tokens for sources, not groups of them: leave out --format pt")
    if asked["overwrite"] and asked["shard"].count > 1:
        raise ValueError("--overwrite would remove what the other shards write: remove the files first")
    check_output_folder(asked["output_dir"])
    from decomp.corpus.sources import check_fit  # imports torch
    from decomp.jobs import open_windows
    from decomp.models.architecture import model_label
    from decomp.models.checks import parse_dtype
    from decomp.runs.decomposition_files import DecompositionFiles

    model, tokenizer = open_model(asked["model"], asked["dtype"], asked["device"], asked["revision"])
    windows = open_windows(articles, model, tokenizer, asked["stride"], asked["bos"])
    check_fit(asked["sources"], windows)
    files = DecompositionFiles(
        asked["output_dir"],
        corpus_name(asked["input_file"]),
        model_label(asked["model"]),
        asked["format_name"],
        parse_dtype(asked["store_dtype"] or asked["dtype"]),
    )
    if not asked["plan"]:
        files.prepare(len(windows), asked["overwrite"])
    return Storing(model, articles, windows, files)


def job_of(storing: Storing, asked: Mapping[str, Any], keep: Keep | None = None) -> Job[Numbered]:
    """Return the job that decomposes the windows, and stores each with `keep`, by default in files."""
    from decomp.jobs import contents
    from decomp.runs.cost import cost_model, planned

    model, windows = storing.model, storing.windows
    cost = cost_model(model, asked["decomposition_length"], with_logits=False)
    plan = planned(windows, cost, asked["sources"])
    made = {**made_now(model.about(), model.default_baseline), **contents(storing.articles, windows)}
    batches = in_batches([window.tokens for window in plan], asked["batch_size"], model.max_length())
    options = {name: asked[name] for name in ("decomposition_length", "activation_rule", "gate_rule", "memory")}
    compute = partial(decompose_and_keep, keep or storing.files.write, options, asked["sources"])
    work = Work("window", list(enumerate(windows)), plan, batches, compute, ())
    return Job(work, model, asked["model"], {**made, "format": asked["format_name"]})


def run_of(storing: Storing, job: Job[Numbered]) -> Run:
    """Return the run that stores the decompositions."""
    work, files = job.work, storing.files
    return Run(files.run_folder(), job.made, work.what, work.plan, work.batches, work.unit_cost, files.of_windows())


def store(storing: Storing, asked: Mapping[str, Any]) -> None:
    """Decompose and store the rest of a run, or of this command's shard of it."""
    job, shard = job_of(storing, asked), asked["shard"]
    wanted = run_of(storing, job)
    left = [job.work.plan[number] for number in wanted.left(shard)]
    size = storing.files.size(left, asked["decomposition_length"], storing.model.unembedding())
    tokens = sum(window.tokens for window in left)
    where = f"{format_bytes(size)} will be written to {asked['output_dir']}"
    say(f"{len(left)} windows, {tokens} tokens; {where}", asked["quiet"])
    storing.files.refuse_full_disk(size)
    work_through(start_or_resume(wanted, asked["overwrite"]), shard, job, asked)
    say_wrote(asked["output_dir"], amount(len(left), "window"))


def show_plan(storing: Storing, asked: Mapping[str, Any]) -> None:
    """Print what the job will take, estimated from one window that is decomposed, and a script for Slurm."""
    files, unembedding = storing.files, storing.model.unembedding()
    job = job_of(storing, asked, keep=forget)
    size = files.size(job.work.plan, asked["decomposition_length"], unembedding)
    found = plan_of_files(job.work.plan, sample_of(job), {files.format_name: size})
    say_plan(found, files.format_name)
    click.echo(f"# when all have ended: decomp deltalp {files.corpus}_{files.model} {asked['model']}")


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
