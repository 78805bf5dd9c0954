"""The manifest of a run: what is computed, written once by the process that comes first and compared by all others."""

import json
import os
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from decomp.io.files import CannotWriteError, remove_abandoned, write_whole
from decomp.runs.parts import STORES
from decomp.runs.run import MANIFEST, SUFFIX, Run
from decomp.tables.provenance import differences
from decomp.tables.work import WorkItem

FORMAT_VERSION = 4


def manifest_of(run: Run) -> dict[str, Any]:
    """Return the manifest of a run, as JSON has it."""
    kind = next(kind for kind, store in STORES.items() if type(run.store) is store)
    return {
        "version": FORMAT_VERSION,
        "request": run.request,
        "batch_ends": [batch.stop for batch in run.batches],
        "unit_cost": run.unit_cost,
        "store": {"kind": kind, **asdict(run.store)},
        "what": run.what,
        "items": dict(zip(WorkItem._fields, map(list, zip(*run.items, strict=True)), strict=True)),
    }


def open_run(folder: Path) -> Run:
    """Return the run in a folder. ValueError for one without a manifest, a damaged one, or one of a newer package."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        version, run = manifest["version"], run_of(folder, manifest)
    except OSError as error:
        raise ValueError(f"{folder} is no run: can't read {path} ({error.strerror})") from error
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: remove {folder}, or choose another folder") from error
    if version < FORMAT_VERSION:
        raise ValueError(
            f"{path} has version {version}, of an older package: finish it with that, or give --overwrite to begin anew"
        )
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} has version {version}, this package reads up to {FORMAT_VERSION}: upgrade it")
    return run


def run_of(folder: Path, manifest: dict[str, Any]) -> Run:
    """Return the run that a manifest describes."""
    store, columns = dict(manifest["store"]), manifest["items"]
    make = STORES[store.pop("kind")]
    return Run(
        folder,
        manifest["request"],
        str(manifest["what"]),
        [WorkItem(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)],
        [range(*ends) for ends in pairwise([0, *manifest["batch_ends"]])],
        manifest["unit_cost"],
        make(**{name: tuple(value) if isinstance(value, list) else value for name, value in store.items()}),
    )


def runs_in(folder: Path) -> list[Run]:
    """Return the run of this folder, or the runs inside it. ValueError if there is none."""
    folders = [folder] if (folder / MANIFEST).exists() else sorted(folder.glob(f"*{SUFFIX}"))
    return [open_run(f) for f in folders or [folder]]


def start_or_resume(wanted: Run, overwrite: bool = False) -> Run:
    """Return the run in `wanted.folder`, made if it is not there; several processes may do so at once.

    ValueError for another request than the run's, with the difference, or a folder that holds something else.
    """
    folder, path = wanted.folder, wanted.folder / MANIFEST
    there = files_in(folder)
    if overwrite and path.exists():
        wanted.remove()
    elif there and not path.exists():
        raise ValueError(f"{folder} is no run, and not empty: choose another folder")
    if not path.exists():
        content = json.dumps(manifest_of(wanted), ensure_ascii=True, indent=1).encode()
        write_whole(path, content, keep_existing=True)
    remove_abandoned(folder)
    run = open_run(folder)
    if different := differences(run.request, wanted.request, "in the run", "asked"):
        raise ValueError(
            f"{folder} is the run of another request ({'; '.join(different)}): ask the same, choose another folder, "
            "or give --overwrite to begin anew"
        )
    run.store.tidy(folder)
    run.check()
    return run


def files_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder, made if it is not there, but for hidden ones.

    CannotWriteError, a ValueError, for a folder that can't be made or read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise CannotWriteError(f"can't make the folder {folder}: {error.strerror}") from error
