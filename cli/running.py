"""The items of a command, computed in one go or in a run that can be interrupted, in this process or in a pool."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from decomp import settings
from decomp.cli.common import command_line, first_computed, made_now, open_model, say, silence_libraries, table
from decomp.cli.options import RUN_OPTIONS, refuse_unless
from decomp.cli.pool import check_ray, open_pool
from decomp.cli.progress import announced, progress, say_wrote
from decomp.io.files import check_output_folder
from decomp.runs.manifest import start_or_resume
from decomp.runs.outputs import FOLDER, claim, is_own
from decomp.runs.parts import ItemRows, TableParts
from decomp.runs.plan import Plan, Sample, longest, sample
from decomp.runs.run import MANIFEST, Batch, Run, Shard
from decomp.runs.tables import own_table, table_of
from decomp.runs.work import Outcome, journal_of, keep, outcomes
from decomp.tables.blocks import Block
from decomp.tables.columns import Writer
from decomp.tables.files import check_table, format_of
from decomp.tables.provenance import Made
from decomp.tables.table import Table
from decomp.tables.work import Work, WorkItem

if TYPE_CHECKING:
    from decomp.jobs import Evaluating
    from decomp.models.base import DecomposedModel

T = TypeVar("T")
Values = Mapping[str, Any]
"""The values of a command's options: those of `options.run_options`, of the model, and for the table."""
Engine = Callable[[list[list[Batch]]], Iterator[Outcome]]
"""A function from units of batches to their outcomes."""


@dataclass(frozen=True)
class Job(Generic[T]):
    """The work of one call of a command, with its model and the account of how its table is made."""

    work: Work[T]
    model: "DecomposedModel"
    name: str
    """The model's name, with which a process of a pool loads it."""
    made: Made
    """The account of how the table is made: all that its bytes depend on."""

    def start(self, values: Values) -> "WorkerStart":
        """Return the function with which a process of a pool loads the model and gets ready to compute."""
        return WorkerStart(self.work.compute, self.name, values["dtype"], values["device"], values["revision"])


def sample_of(job: Job[T]) -> Sample:
    """Compute the longest of a job's items and return its cost."""
    number = longest(job.work.plan)
    return sample(job.work.plan[number], partial(job.work.compute, job.model, [job.work.items[number]]))


def say_plan(found: Plan, form: str, without: Sequence[str] = (), **other: str) -> None:
    """Print a plan and a warning of results that are too large, and to standard output a script for Slurm.

    The script's command is the running one, without the options `without` and with the `other` ones.
    """
    click.echo("\n".join(found.lines()), err=True)
    if warning := found.warning(form):
        click.echo(f"Warning: {warning}", err=True)
    context = click.get_current_context()
    click.echo(found.sbatch(command_line(context, ("plan", "shard", *without), **other)))


@dataclass(frozen=True)
class WorkerStart:
    """The start of a process of a pool: a call loads the model, and returns the function that computes batches."""

    compute: Callable[..., Block]
    model: str
    dtype: str
    device: str
    revision: str | None

    def __call__(self) -> Callable[[Sequence[Any]], Block]:
        model, _ = open_model(self.model, self.dtype, self.device, self.revision)
        return partial(self.compute, model)


def device_here(values: Values) -> str:
    """Return the device for this process; with a pool it is cpu, since only the workers may have another."""
    return "cpu" if values["engine"] == "ray" else str(values["device"])


def check_output_options(values: Values, inputs: Iterable[Path | str | None], *others: Path | None) -> None:
    """Raise ValueError for outputs that can't or must not be written, and for run options that don't go together.

    A run may write its own earlier outputs again. `others` are files beside the table.
    """
    run = values["run_folder"]
    check_run_options(run, values["shard"], values["engine"], values["overwrite"])
    is_pool, needed = values["engine"] == "ray", "needs --engine ray: give that too, or leave it out"
    refuse_unless(is_pool, needed, "num_workers", "ray_address")
    if is_pool:
        check_ray()
    if run is not None:
        check_output_folder(run)
        inputs = (*inputs, run / MANIFEST, run / "parts", run / "journal", run / FOLDER)
    outputs = [values["output"], *others]
    for own in (True, False):
        chosen = [path if is_own(run, path) == own else None for path in outputs]
        check_table(chosen[0], values["format_name"], *chosen[1:], inputs=inputs, overwrite=own or values["overwrite"])


def check_run_options(run_folder: Path | None, shard: Shard, engine: str, overwrite: bool) -> None:
    """Raise ValueError for options that only runs have, or that several processes can't share."""
    if run_folder is None and (engine != "local" or shard.count > 1):
        raise ValueError("--shard and --engine ray need a folder for their parts: give --run")
    if overwrite and shard.count > 1:
        raise ValueError("--overwrite would remove what the other shards compute: remove the folder of --run first")


def table_rows(job: Job[T], values: Values) -> Iterator[Block] | None:
    """Return the rows of the job's table, computed as they are taken, or in a run first computed and then read.

    None where the table has to wait for other shards.
    """
    work, folder = job.work, values["run_folder"]
    if folder is None:
        return first_computed(work.table(with_progress(job, values["quiet"])))
    run = start_or_resume(run_of(job, folder), values["overwrite"])
    work_through(run, values["shard"], job, values)
    if not run.is_complete():
        left, count = len(run.items) - len(run.done()), len(run.items)
        say(f"{left} of {count} {run.what}s are left to other shards: decomp status {folder}", values["quiet"])
        return None
    if isinstance(run.store, ItemRows):
        run.store.write_table(folder, work.table(run.rows()), run.request)
    return table_of(run).blocks()


def evaluate(
    name: str,
    source: Sequence[Any],
    inputs: Sequence[Path],
    shown: Callable[[Table], Iterable[str]],
    values: Values,
) -> None:
    """Print the result of the evaluation with this name, and write its table if a file is asked for."""
    check_output_options(values, (*inputs, values["model"]))
    given = {name: value for name, value in values.items() if name not in NO_SETTINGS}
    getattr(settings, f"{name}_settings")(source, **given)
    from decomp import jobs  # imports torch

    silence_libraries()
    opened: Evaluating[Any] = getattr(jobs, f"open_{name}")(
        source, values["model"], device=device_here(values), **given
    )
    made = made_now(opened.model.about(), lambda _: opened.made["options"]["baseline"])
    job = Job(opened.work, opened.model, values["model"], {**made, **opened.contents})
    blocks = table_rows(job, values)
    if blocks is None:
        return
    found = Table.from_blocks(job.work.columns, blocks)
    click.echo("\n".join(shown(found)))
    if values["output"] is not None:
        with writer(job, values) as write:
            write(found.data)


NO_SETTINGS = {
    *RUN_OPTIONS,
    "input_format",
    "text_field",
    "id_field",
    "model",
    "device",
    "output",
    "format_name",
    "overwrite",
    "quiet",
}


def ignore(block: Block) -> None:
    """Do nothing with rows."""


def deliver(
    job: Job[T],
    values: Values,
    on_block: Callable[[Block], object] = ignore,
    at_end: Callable[[], object] = lambda: None,
) -> bool:
    """Write the job's table to its output; return whether it is complete, or has to wait for other shards.

    `on_block` is called with each block of the table's rows, `at_end` once all are written but not yet in place.
    """
    blocks, run = table_rows(job, values), values["run_folder"]
    if blocks is None:
        return False
    with writer(job, values) as write:
        for block in blocks:
            on_block(block)
            write(block)
        at_end()
    if run is not None and values["output"] is None:
        count = f"all {len(job.work.items)} {job.work.what}s are done"
        say(f"{count}: decomp table {run} -o FILE makes one table", values["quiet"])
    return True


@contextmanager
def writer(job: Job[T], values: Values) -> Iterator[Writer]:
    """Open the table that was asked for, and give the function that writes its rows; without one it does nothing."""
    output, run, columns = values["output"], values["run_folder"], job.work.columns
    if run is None:
        with table(output, values["format_name"], columns, job.made) as write:
            yield write
    elif output is None:
        yield lambda _: None
    else:
        opened = own_table(run, output, format_of(output, values["format_name"]), columns, job.made)
        with announced(output, opened) as write:
            yield write


def claim_other_files(values: Values, *outputs: Path | None) -> None:
    """Print which files were written beside a table, and record those of a run, so that it may write them again."""
    for output in filter(None, outputs):
        if values["run_folder"] is not None:
            claim(values["run_folder"], output, output)
        say_wrote(output)


def run_of(job: Job[T], folder: Path) -> Run:
    """Return the run of a job in this folder."""
    work = job.work
    count, columns = len(work.items), work.computed
    store = TableParts(columns, count) if work.summary is None else ItemRows(columns, count, work.columns)
    return Run(folder, job.made, work.what, work.plan, work.batches, work.unit_cost, store)


def with_progress(job: Job[T], quiet: bool) -> Iterator[Block]:
    """Yield the rows of all items, and show the progress."""
    work = job.work
    with progress_over(work.what, work.plan, quiet) as advance:
        yield from work.blocks(job.model, lambda batch: advance(work.plan[number] for number in batch))


@contextmanager
def progress_over(what: str, items: Sequence[WorkItem], quiet: bool) -> Iterator[Callable[[Iterable[WorkItem]], None]]:
    """Show the progress through some items, and give the function that counts items as done."""
    with progress(what, len(items), sum(item.cost for item in items), quiet) as shown:

        def advance(done: Iterable[WorkItem]) -> None:
            for item in done:
                shown.advance(item.cost, item.targets)

        yield advance


def work_through(run: Run, shard: Shard, job: Job[T], values: Values) -> None:
    """Compute what is left of one shard.

    An interruption ends with a line on how to go on, and exit code 130, or 143 for SIGTERM; items that failed with exit
    code 1.
    """
    to_do, own = run.left(shard), sum(map(len, run.share(shard)))
    if len(to_do) < own:
        say(f"{own - len(to_do)} of {own} {run.what}s are done, {len(to_do)} to do", values["quiet"])
    if not to_do:
        return
    with explained_interruptions(run):
        failed = failures_of(run, shard, job, values)
    if failed:
        raise click.ClickException(
            f"{sum(len(o.items) for o in failed)} of {own} {run.what}s failed, the first with: {failed[0].error}\n"
            f"The same command tries them again; decomp status {run.folder} lists them."
        )


def failures_of(run: Run, shard: Shard, job: Job[T], values: Values) -> list[Outcome]:
    """Compute and keep what is left of one shard, and return the outcomes that failed."""
    failed = list[Outcome]()
    with engine_of(job, values) as (work, means):
        journal = journal_of(run, shard, **means)
        with progress_over(run.what, [run.items[n] for n in run.left(shard)], values["quiet"]) as advance:
            for outcome in work(run.units(shard)):
                keep(run, outcome, journal)
                advance(run.items[number] for number in outcome.items)
                failed += [outcome] if outcome.error is not None else []
    return failed


@contextmanager
def explained_interruptions(run: Run) -> Iterator[None]:
    """Print how to go on with a run that is interrupted or told to end; Ctrl-C exits with 130."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        done = f"{len(run.done())} of {len(run.items)} {run.what}s are done and kept"
        click.echo(f"\nStopped: {done}. The same command goes on from here.", err=True)
        if isinstance(stop, KeyboardInterrupt):
            raise click.exceptions.Exit(130) from None
        raise


@contextmanager
def engine_of(job: Job[T], values: Values) -> Iterator[tuple[Engine, dict[str, Any]]]:
    """Open the engine that computes units, in this process or a pool, and the facts about it for the journal."""
    items = list(job.work.items)
    if values.get("engine", "local") == "local":
        from torch import get_num_threads

        yield (
            local_engine(items, partial(job.work.compute, job.model)),
            {"engine": "local", "threads": get_num_threads()},
        )
        return
    with open_pool(values["ray_address"], values["num_workers"], values["device"]) as pool:
        say(f"{pool.workers} workers of {pool.threads} threads each", values["quiet"])
        work = partial(pool.run, job.start(values), items)
        yield work, {"engine": "ray", "workers": pool.workers, "threads": pool.threads}


def local_engine(items: list[T], compute: Callable[[list[T]], Block]) -> Engine:
    """Return the engine that computes in this process."""

    def work(batch: Batch) -> Block:
        return compute(items[batch.start : batch.stop])

    return lambda units: (outcome for unit in units for outcome in outcomes(unit, work))
