"""Finding stored decompositions by name, checked against their run; importing it takes no torch."""

import difflib
from pathlib import Path

from decomp.core.file_names import numbered, stored_identifiers
from decomp.runs.manifest import open_run
from decomp.runs.run import MANIFEST, SUFFIX


def find_stored(identifier: str, folder: Path) -> dict[str, Path]:
    """Return the stored file with this identifier, or those of all windows of this corpus and model, in order.

    ValueError for an unknown identifier, a run that is not finished, and windows that are missing or have another's
    name.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: give the one that decomp decompose wrote, with --output-dir")
    stored = stored_identifiers(folder)
    if identifier in stored:
        return {identifier: stored[identifier]}
    windows = numbered(identifier, stored)
    check_all_there(identifier, folder, windows)
    if windows:
        return {name: stored[name] for _, name in sorted(windows.items())}
    near = difflib.get_close_matches(identifier, stored, n=5, cutoff=0.3)
    known = f"near ones are {', '.join(near)}" if near else f"the folder has {len(stored)} decompositions"
    raise ValueError(f"no decomposition {identifier!r} in {folder}: {known}")


def check_all_there(identifier: str, folder: Path, windows: dict[int, str]) -> None:
    """Raise ValueError unless these are all windows of the run, or, where no run is known, numbered without a gap."""
    run_folder = folder / f"{identifier}{SUFFIX}"
    count = max(windows, default=-1) + 1
    if (run_folder / MANIFEST).exists():
        run = open_run(run_folder)
        run.refuse_incomplete()
        run.check()
        if count > len(run.items):
            raise ValueError(
                f"{windows[count - 1]} in {folder} is not of the run {run_folder}, which has {len(run.items)} "
                "windows: remove it"
            )
    elif missing := sorted(set(range(count)) - set(windows)):
        raise ValueError(
            f"{identifier}_{missing[0]} is missing in {folder}, as {len(missing)} of {count} windows are: decompose "
            "again, or give the identifiers of single windows"
        )
