"""`decomp decompose` starts or resumes a run here, whose windows are decomposed and stored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from decomp.cli.common import open_model, say
from decomp.cli.running import locally, planned, request_of_run, work_through
from decomp.corpus.articles import Article, InputFormat, corpus_name, read_articles
from decomp.corpus.batches import in_batches
from decomp.corpus.windows import TokenisedWindow
from decomp.io.amounts import format_bytes, parse_bytes
from decomp.jobs import open_windows
from decomp.models.base import DecomposedModel, check_decomposition_length, model_label
from decomp.models.checks import parse_dtype
from decomp.runs.cost import cost_model
from decomp.runs.decomposition_files import DecompositionFiles
from decomp.runs.manifest import start_or_resume
from decomp.runs.run import Run
from decomp.tables.blocks import Block

Numbered = tuple[int, TokenisedWindow]


@dataclass(frozen=True)
class Job:
    """One call of `decomp decompose`: what it decomposes, and where that goes."""

    model: DecomposedModel
    articles: Sequence[Article]
    windows: Sequence[TokenisedWindow]
    files: DecompositionFiles


def open_job(asked: Mapping[str, Any]) -> Job:
    """Return the job that the values of the command's options ask for, read and checked."""
    articles = read_articles(
        asked["input_file"], InputFormat(asked["input_format"], asked["text_field"], asked["id_field"])
    )
    check_decomposition_length(asked["decomposition_length"], 1)
    parse_bytes(asked["memory"])
    if asked["overwrite"] and asked["shard"].count > 1:
        raise ValueError("--overwrite would remove what the other shards write: remove the files first")
    model, tokenizer = open_model(asked["model"], asked["dtype"], asked["device"], asked["revision"])
    windows = open_windows(articles, model, tokenizer, asked["stride"], asked["bos"])
    files = DecompositionFiles(
        asked["output_dir"],
        corpus_name(asked["input_file"]),
        model_label(asked["model"]),
        asked["format_name"],
        parse_dtype(asked["store_dtype"] or asked["dtype"]),
    )
    files.prepare(len(windows), asked["overwrite"])
    return Job(model, articles, windows, files)


def run_of(job: Job, asked: Mapping[str, Any]) -> Run:
    """Return the run that stores the job's decompositions."""
    plan = planned(job.windows, cost_model(job.model, asked["decomposition_length"], with_logits=False))
    request = {**request_of_run(job.model, job.articles, job.windows), "format": asked["format_name"]}
    batches = in_batches([window.tokens for window in plan], asked["batch_size"], job.model.max_length())
    return Run(job.files.run_folder(), request, plan, batches, 0, job.files.of_windows())


def store(job: Job, asked: Mapping[str, Any]) -> None:
    """Decompose and store what is left of a run, or of this command's shard of it."""
    wanted, shard, quiet = run_of(job, asked), asked["shard"], asked["quiet"]
    left = [job.windows[number] for number in wanted.left(shard)]
    size = job.files.size(left, asked["decomposition_length"], job.model.unembedding())
    tokens = sum(len(window.ids) for window in left)
    say(
        f"{len(left)} windows, {tokens} tokens; {format_bytes(size)} will be written to {asked['output_dir']}",
        quiet,
    )
    job.files.refuse_full_disk(size)
    run = start_or_resume(wanted, asked["overwrite"])
    work = locally(list(enumerate(job.windows)), writer_of(job, asked))
    work_through(run, shard, work, quiet, engine="local", threads=torch.get_num_threads())


def writer_of(job: Job, asked: Mapping[str, Any]) -> Callable[[list[Numbered]], Block]:
    """Return what decomposes the windows of a batch and writes their files."""
    names = ("decomposition_length", "activation_rule", "gate_rule", "memory")
    options = {name: asked[name] for name in names}

    def write(batch: list[Numbered]) -> Block:
        ids = [window.ids.to(job.model.device) for _, window in batch]
        for (number, window), result in zip(batch, job.model.decompose_batch(ids, **options), strict=True):
            job.files.write(number, result, window)
        return {}

    return write
