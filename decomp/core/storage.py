"""Decompositions and unembeddings on disk: safetensors, and the original research code's `.pt` files."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from decomp.core.ablation import Unembedding
from decomp.core.decomposition import Decomposition
from decomp.core.pairs import pair_indices, pair_offset
from decomp.io.files import check_outputs, complete_or_absent

FORMAT_VERSION = 1
METADATA_KEY = "decomp"
SUFFIX = ".safetensors"
STORED_TENSORS = {"input_ids", "contributions", "bias", "hidden", "remainder"}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """One metadata entry, so that the same content gives the same bytes."""
    with complete_or_absent(path) as beside:
        content = json.dumps({"version": FORMAT_VERSION, **about}, ensure_ascii=True, sort_keys=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, beside, {METADATA_KEY: content})


def read_header(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    """The open file and what it says of itself. ValueError for a truncated, foreign or newer file."""
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    try:
        file = safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}): write it again") from error
    content = (file.metadata() or {}).get(METADATA_KEY)
    about = json.loads(content) if content else {}
    if about.get("kind") != kind:
        raise ValueError(f"{path} holds no {kind}: expected a file that this package wrote")
    if about["version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {about['version']}, this package reads up to {FORMAT_VERSION}: upgrade it"
        )
    return file, about


@dataclass(frozen=True)
class StoredRows:
    """Contributions in a file; a slice reads its rows and no more."""

    path: Path

    def __getitem__(self, index: slice, /) -> Float[Tensor, "pairs E"]:
        with safe_open(self.path, "pt") as file:
            return file.get_slice("contributions")[index]


def unembedding_path(folder: Path, model: str) -> Path:
    return folder / f"{model}_unembedding{SUFFIX}"


def save_unembedding(unembedding: Unembedding, path: Path, about: Mapping[str, str]) -> None:
    tensors = {"weight": unembedding.weight}
    if unembedding.bias is not None:
        tensors["bias"] = unembedding.bias
    write_safetensors(path, tensors, {"kind": "unembedding", "about": dict(about)})


def open_unembedding(path: Path, about: Mapping[str, str]) -> Any:
    """The open file. ValueError if it belongs to another model than `about` says."""
    file, header = read_header(path, "unembedding")
    if header["about"].get("weights") != about.get("weights"):
        raise ValueError(
            f"{path} is of another model ({header['about'].get('model')}, weights {header['about'].get('weights')}) "
            f"than the decomposition ({about.get('model')}, weights {about.get('weights')}): "
            "decompose again, into another folder"
        )
    return file


def load_unembedding(path: Path, about: Mapping[str, str]) -> Unembedding:
    """ValueError if it belongs to another model than `about` says."""
    file = open_unembedding(path, about)
    return Unembedding(file.get_tensor("weight"), file.get_tensor("bias") if "bias" in set(file.keys()) else None)


def narrowed(contributions: Tensor, dtype: torch.dtype | None) -> Tensor:
    """ValueError where a number does not fit."""
    stored = contributions if dtype is None else contributions.to(dtype)
    if not stored.isfinite().all():
        raise ValueError(f"some contributions are too large for {stored.dtype}: store them as bfloat16 or float32")
    return stored


def save(result: Decomposition, path: Path, *, dtype: torch.dtype | None = None, overwrite: bool = False) -> None:
    """Write `path`, and the unembedding beside it unless that is there.

    ValueError for an existing file, an unembedding of another model, a folder that can't be written, or
    contributions that `dtype` can't hold.
    """
    check_outputs([path], overwrite=overwrite)
    rows = narrowed(result.rows[: pair_offset(len(result), result.decomposition_length)], dtype)
    tensors = {
        "input_ids": result.input_ids,
        "contributions": rows,
        "bias": result.bias,
        "hidden": result.hidden,
        "remainder": result.older,
    }
    about = {
        "kind": "decomposition",
        "decomposition_length": result.decomposition_length,
        "tokens": result.tokens,
        "about": dict(result.about),
    }
    if result.unembedding is not None:
        beside = unembedding_path(path.parent, result.about.get("model", "model"))
        if beside.exists():
            open_unembedding(beside, result.about)
        else:
            save_unembedding(result.unembedding, beside, result.about)
    write_safetensors(path, tensors, about)


def load(path: str | Path) -> Decomposition:
    """A stored decomposition; contributions are read as they are asked for, the unembedding from beside it.

    Also reads the original `d_{id}.pt` (with its `i_` and `o_` files; `bias` is then all that `d` leaves
    of `o`). ValueError for a file that is missing, truncated, foreign, or newer than this package.
    """
    path = Path(path)
    if path.suffix == ".pt":
        return load_pt(path)
    file, header = read_header(path, "decomposition")
    if missing := STORED_TENSORS - set(file.keys()):
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: write it again")
    ids, length = file.get_tensor("input_ids"), header["decomposition_length"]
    pairs, shape = pair_offset(len(ids), length), file.get_slice("contributions").get_shape()
    if shape[0] != pairs:
        raise ValueError(f"{path} has {shape[0]} contributions, {len(ids)} tokens need {pairs}: write it again")
    beside = unembedding_path(path.parent, header["about"].get("model", "model"))
    return Decomposition(
        input_ids=ids,
        decomposition_length=length,
        rows=StoredRows(path),
        bias=file.get_tensor("bias"),
        hidden=file.get_tensor("hidden"),
        older=file.get_tensor("remainder"),
        unembedding=load_unembedding(beside, header["about"]) if beside.is_file() else None,
        tokens=None if header["tokens"] is None else tuple(header["tokens"]),
        about=header["about"],
    )


def pt_paths(folder: Path, identifier: str) -> tuple[Path, Path, Path]:
    """The original names: contributions, input ids, hidden states."""
    d, i, o = (folder / f"{letter}_{identifier}.pt" for letter in "dio")
    return d, i, o


def pt_unembedding_path(folder: Path, model: str) -> Path:
    return folder / f"{model}_proj_weights.pt"


def write_pt(path: Path, tensor: Tensor) -> None:
    with complete_or_absent(path) as beside:
        torch.save(tensor.detach().cpu().contiguous(), beside)


def save_pt(
    result: Decomposition,
    folder: Path,
    identifier: str,
    model: str,
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> None:
    """The original files: `d` (min(W, T), T, E) with `d[r, t]` of source t−r at target t, `i`, `o`, projection."""
    paths = pt_paths(folder, identifier)
    check_outputs(paths, overwrite=overwrite)
    targets, sources = result.pairs()
    rows = narrowed(result.rows[: len(targets)], dtype)
    d = rows.new_zeros(min(result.decomposition_length, len(result)), *result.hidden.shape)
    d[targets - sources, targets] = rows
    if result.unembedding is not None and not pt_unembedding_path(folder, model).exists():
        write_pt(pt_unembedding_path(folder, model), result.unembedding.weight)
    for path, tensor in zip(paths, (d, result.input_ids[None], result.hidden[None]), strict=True):
        write_pt(path, tensor)


def read_pt(path: Path) -> Tensor:
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken pickle raises is anyone's guess
        raise ValueError(f"{path} is truncated or no tensor file: write it again") from error
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{path} holds no tensor: expected a file of the original format")
    return tensor


def load_pt(path: Path, unembedding: Path | None = None) -> Decomposition:
    """The original files, `path` being the `d_{id}.pt`."""
    if not path.name.startswith("d_"):
        raise ValueError(f"{path} is no d_{{id}}.pt: give the file of the contributions")
    d, ids, hidden = (read_pt(p) for p in pt_paths(path.parent, path.stem[2:]))
    ids, hidden = ids.reshape(-1), hidden.reshape(-1, hidden.shape[-1])
    if d.ndim != 3 or d.shape[1:] != hidden.shape or len(ids) != len(hidden) or len(d) > len(ids):
        raise ValueError(
            f"{path}: shapes {tuple(d.shape)}, {tuple(ids.shape)}, {tuple(hidden.shape)} do not fit together"
        )
    targets, sources = pair_indices(len(ids), len(d))
    return Decomposition(
        input_ids=ids,
        decomposition_length=len(d),
        rows=d[targets - sources, targets],
        bias=hidden - d.sum(0),
        hidden=hidden,
        older=torch.zeros_like(hidden),
        unembedding=None if unembedding is None else Unembedding(read_pt(unembedding)),
    )


def stored_identifiers(folder: Path) -> dict[str, Path]:
    """Identifiers of the decompositions in a folder, either format."""
    ours = {p.stem: p for p in folder.glob(f"*{SUFFIX}") if not p.stem.endswith("_unembedding")}
    return {p.stem[2:]: p for p in folder.glob("d_*.pt")} | ours


def numbered(run: str, identifiers: Iterable[str]) -> dict[int, str]:
    """The identifiers `{run}_{n}`, by n."""
    matches = (re.fullmatch(re.escape(run) + r"_(\d+)", name) for name in identifiers)
    return {int(match[1]): match[0] for match in matches if match}
