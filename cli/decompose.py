"""`decomp decompose`: corpus in, decomposition files out."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decomp.cli import options
from decomp.io.amounts import format_bytes

if TYPE_CHECKING:
    import torch

    from decomp.core.ablation import Unembedding
    from decomp.core.decomposition import Decomposition
    from decomp.corpus.windows import TokenisedWindow
    from decomp.runs.parts import WindowFiles
    from decomp.runs.run import Shard
    from decomp.tables.blocks import Block


@click.command("decompose")
@options.input_file
@options.model
@click.argument("decomposition_length", type=int)
@click.option("--output-dir", type=click.Path(path_type=Path), default=Path("output"), show_default=True)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["safetensors", "pt"]),
    default="safetensors",
    show_default=True,
    help="pt: the names and shapes of the original research code.",
)
@click.option(
    "--store-dtype",
    type=click.Choice(["float64", "float32", "bfloat16", "float16"]),
    help="Precision of the files.  [default: that of --dtype]",
)
@options.input_options
@options.memory
@options.model_options
@options.window_options
@options.shard
@options.overwrite
@options.quiet
def command(
    input_file: Path,
    model: str,
    decomposition_length: int,
    output_dir: Path,
    format_name: str,
    store_dtype: str | None,
    input_format: str | None,
    text_field: str,
    id_field: str,
    memory: str,
    device: str,
    dtype: str,
    activation_rule: Any,
    gate_rule: Any,
    revision: str | None,
    stride: int | None,
    bos: bool,
    batch_size: int | None,
    shard: "Shard",
    overwrite: bool,
    quiet: bool,
) -> None:
    """Decompose every window of INPUT_FILE under MODEL and store the results.

    DECOMPOSITION_LENGTH is the number of most recent source tokens kept per target (the target included).
    Writes one file per window, {corpus}_{model}_{n}, and once the unembedding, which ΔLP needs. Whatever stops
    it, the same command goes on where it stopped.
    """
    import torch

    from decomp.cli.common import open_model, say
    from decomp.cli.running import locally, planned, request_of_run, work_through
    from decomp.corpus.articles import InputFormat, corpus_name, read_articles
    from decomp.corpus.batches import in_batches
    from decomp.io.amounts import parse_bytes
    from decomp.jobs import open_windows
    from decomp.models.base import check_decomposition_length, model_label
    from decomp.models.checks import parse_dtype
    from decomp.runs.cost import cost_model
    from decomp.runs.manifest import start_or_resume
    from decomp.runs.run import Run

    articles = read_articles(input_file, InputFormat(input_format, text_field, id_field))
    check_decomposition_length(decomposition_length, 1)
    buffers = parse_bytes(memory)
    if overwrite and shard.count > 1:
        raise ValueError("--overwrite would remove what the other shards write: remove the files first")
    decomposed, tokenizer = open_model(model, dtype, device, revision)
    windows = open_windows(articles, decomposed, tokenizer, stride, bos)
    name, stored_dtype = corpus_name(input_file), parse_dtype(store_dtype or dtype)
    output = Output(output_dir, name, model_label(model), format_name, stored_dtype)
    output.prepare(len(windows), overwrite)
    cost = cost_model(decomposed, decomposition_length, with_logits=False)
    job = {**request_of_run(decomposed, articles, windows), "format": format_name}
    plan = planned(windows, cost)
    batches = in_batches([window.tokens for window in plan], batch_size, decomposed.max_length())
    wanted = Run(output.run_folder(), job, plan, batches, 0, output.store())
    left = wanted.left(shard)
    size = output.size([windows[n] for n in left], decomposition_length, decomposed.unembedding())
    tokens = sum(len(windows[n].ids) for n in left)
    say(f"{len(left)} windows, {tokens} tokens; {format_bytes(size)} will be written to {output_dir}", quiet)
    output.refuse_full_disk(size)

    def compute(batch: "list[tuple[int, TokenisedWindow]]") -> "Block":
        results = decomposed.decompose_batch(
            [window.ids.to(decomposed.device) for _, window in batch],
            decomposition_length=decomposition_length,
            activation_rule=activation_rule,
            gate_rule=gate_rule,
            memory=buffers,
        )
        for (number, window), result in zip(batch, results, strict=True):
            output.write(number, result, window)
        return {}

    run = start_or_resume(wanted, overwrite)
    work_through(
        run, shard, locally(list(enumerate(windows)), compute), quiet, engine="local", threads=torch.get_num_threads()
    )


@dataclass(frozen=True)
class Output:
    """Where the files of a run go, and in which form."""

    folder: Path
    corpus: str
    model: str
    format_name: str
    dtype: "torch.dtype"

    def identifier(self, number: int) -> str:
        return f"{self.corpus}_{self.model}_{number}"

    def paths(self, number: int) -> tuple[Path, ...]:
        from decomp.core.storage import SUFFIX, pt_manifest_path, pt_paths

        if self.format_name == "pt":
            identifier = self.identifier(number)
            return (*pt_paths(self.folder, identifier), pt_manifest_path(self.folder, identifier))
        return (self.folder / f"{self.identifier(number)}{SUFFIX}",)

    def shared_path(self) -> Path:
        """The unembedding, once for all windows."""
        from decomp.core.storage import pt_unembedding_path, unembedding_path

        return (pt_unembedding_path if self.format_name == "pt" else unembedding_path)(self.folder, self.model)

    def prepare(self, windows: int, overwrite: bool) -> None:
        """Make the folder; refuse files of these names that are no run's, or with `overwrite` remove them."""
        from decomp.core.storage import numbered, stored_identifiers
        from decomp.io.files import check_outputs, status_of_file
        from decomp.runs.run import MANIFEST

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"can't make the output folder {self.folder}: {error.strerror}") from error
        if not os.access(self.folder, os.W_OK):
            raise ValueError(f"can't write into {self.folder}: choose another --output-dir")
        there = [path for number in range(windows) for path in self.paths(number) if status_of_file(path)]
        if overwrite:
            for number in numbered(f"{self.corpus}_{self.model}", stored_identifiers(self.folder)):
                for path in self.paths(number):
                    path.unlink(missing_ok=True)
            self.shared_path().unlink(missing_ok=True)
        # After the files: another shard makes the manifest before it writes any.
        elif there and not (self.run_folder() / MANIFEST).exists():
            check_outputs(there[:1])

    def run_folder(self) -> Path:
        from decomp.runs.run import SUFFIX

        return self.folder / f"{self.corpus}_{self.model}{SUFFIX}"

    def store(self) -> "WindowFiles":
        """The files of which a window has all when it is done."""
        from decomp.runs.parts import WindowFiles

        # Any number will do: the last one in a name is the window's.
        return WindowFiles(tuple("{n}".join(path.name.rsplit("0", 1)) for path in self.paths(0)))

    def size(self, windows: "list[TokenisedWindow]", length: int, unembedding: "Unembedding") -> int:
        """Bytes that the run will write."""
        from decomp.core.pairs import pair_offset

        vocab, hidden = unembedding.weight.shape
        item, full = self.dtype.itemsize, unembedding.weight.element_size()

        def window_bytes(tokens: int) -> int:
            kept = min(length, tokens)
            pairs = kept * tokens if self.format_name == "pt" else pair_offset(tokens, kept)
            states = 1 if self.format_name == "pt" else 3
            return (pairs * item + states * tokens * full) * hidden

        return sum(window_bytes(len(w.ids)) for w in windows) + vocab * hidden * full

    def refuse_full_disk(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise ValueError(
                f"the output needs {format_bytes(size)}, {self.folder} has {format_bytes(free)} free: use a shorter "
                "decomposition length, --store-dtype float16, or decomp score, which stores no contributions"
            )

    def write(self, number: int, result: "Decomposition", window: "TokenisedWindow") -> None:
        from safetensors import SafetensorError

        from decomp.core.storage import save_pt
        from decomp.io.files import CannotWriteError
        from decomp.runs.stored import placed

        result = placed(result, window, model=self.model, corpus=self.corpus)
        try:
            if self.format_name == "pt":
                save_pt(result, self.folder, self.identifier(number), self.model, dtype=self.dtype, overwrite=True)
            else:
                (path,) = self.paths(number)
                result.save(path, dtype=self.dtype, overwrite=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise CannotWriteError(f"can't write {self.identifier(number)} into {self.folder}: {error}") from error
