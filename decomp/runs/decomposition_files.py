"""The files that `decomp decompose` writes: one for each window, and once the unembedding."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from decomp.core.ablation import Unembedding
from decomp.core.decomposition import Decomposition
from decomp.core.file_names import SUFFIX, numbered, stored_identifiers
from decomp.core.storage import (
    pt_manifest_path,
    pt_paths,
    pt_unembedding_path,
    save_pt,
    unembedding_path,
)
from decomp.corpus.windows import TokenisedWindow
from decomp.io.amounts import format_bytes
from decomp.io.files import CannotWriteError, check_outputs, status_of_file
from decomp.runs import run
from decomp.runs.parts import WindowFiles
from decomp.runs.stored import with_text_spans
from decomp.tables.work import WorkItem


@dataclass(frozen=True)
class DecompositionFiles:
    """The files in which the decompositions of a corpus under a model are stored."""

    folder: Path
    corpus: str
    model: str
    format_name: str
    """`safetensors`, or `pt`: the names and shapes of the original research code."""
    dtype: torch.dtype

    @property
    def is_pt(self) -> bool:
        """Return whether the files are those of the original research code."""
        return self.format_name == "pt"

    def identifier(self, number: int) -> str:
        """Return the name that the files of a window begin with: {corpus}_{model}_{n}."""
        return f"{self.corpus}_{self.model}_{number}"

    def paths(self, number: int) -> tuple[Path, ...]:
        """Return the files of a window."""
        identifier = self.identifier(number)
        if self.is_pt:
            return (*pt_paths(self.folder, identifier), pt_manifest_path(self.folder, identifier))
        return (self.folder / f"{identifier}{SUFFIX}",)

    def shared_path(self) -> Path:
        """Return the path of the unembedding, which all windows share."""
        return (pt_unembedding_path if self.is_pt else unembedding_path)(self.folder, self.model)

    def run_folder(self) -> Path:
        """Return the folder of the run that writes these files."""
        return self.folder / f"{self.corpus}_{self.model}{run.SUFFIX}"

    def window_files(self) -> WindowFiles:
        """Return the files that a window must have to count as done."""
        # Any number will do: the last one in a name is the window's.
        return WindowFiles(tuple("{n}".join(path.name.rsplit("0", 1)) for path in self.paths(0)))

    def prepare(self, windows: int, overwrite: bool) -> None:
        """Make the folder, and refuse or, with `overwrite`, remove files of these names that belong to no run.

        ValueError for a folder that can't be made or written into.
        """
        make_folder(self.folder)
        if overwrite:
            self.remove()
            return
        there = [path for number in range(windows) for path in self.paths(number) if status_of_file(path)]
        # After the files: another shard makes the manifest before it writes any.
        if there and not (self.run_folder() / run.MANIFEST).exists():
            check_outputs(there[:1])

    def remove(self) -> None:
        """Remove the files of all windows, of however long a corpus, and the unembedding."""
        for number in numbered(f"{self.corpus}_{self.model}", stored_identifiers(self.folder)):
            for path in self.paths(number):
                path.unlink(missing_ok=True)
        self.shared_path().unlink(missing_ok=True)

    def size(self, windows: Sequence[WorkItem], length: int, unembedding: Unembedding) -> int:
        """Return the bytes of all windows with the `length` most recent sources each, and of the unembedding."""
        vocab, hidden = unembedding.weight.shape
        full = unembedding.weight.element_size()
        return sum(self.window_size(w, length, hidden, full) for w in windows) + vocab * hidden * full

    def window_size(self, window: WorkItem, length: int, hidden: int, full: int) -> int:
        """Return the bytes of one window; `full` is the number of bytes of one entry of a hidden state."""
        square = min(length, window.tokens) * window.tokens
        pairs, states = (square, 1) if self.is_pt else (window.pairs, 3)
        return (pairs * self.dtype.itemsize + states * window.tokens * full) * hidden

    def refuse_full_disk(self, size: int) -> None:
        """Raise ValueError where the disk has fewer than `size` bytes free."""
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise ValueError(
                f"the output needs {format_bytes(size)}, {self.folder} has {format_bytes(free)} free: use a shorter "
                "decomposition length, --store-dtype float16, or decomp score, which stores no contributions"
            )

    def write(self, number: int, result: Decomposition, window: TokenisedWindow) -> None:
        """Write a window's decomposition, with its tokens and their places. CannotWriteError where that fails."""
        result = with_text_spans(result, window, model=self.model, corpus=self.corpus)
        try:
            if self.is_pt:
                save_pt(result, self.folder, self.identifier(number), self.model, dtype=self.dtype, overwrite=True)
            else:
                (path,) = self.paths(number)
                result.save(path, dtype=self.dtype, overwrite=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise CannotWriteError(f"can't write {self.identifier(number)} into {self.folder}: {error}") from error


def make_folder(folder: Path) -> None:
    """Make a folder to write into, if it is not there. ValueError where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"can't make the output folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"can't write into {folder}: choose another --output-dir")
