"""Decompositions and unembeddings on disk: safetensors, and the original research code's `.pt` files.

Every file says how it was made and has digests of all that it holds, by blocks of rows, so that damage shows where
rows are read: those of `.pt` files are in a manifest beside them. `read` gives the fields of a `Decomposition`.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from decomp.core.ablation import Unembedding
from decomp.core.pairs import Pairs
from decomp.core.partition import Partition
from decomp.io.digests import digest, file_digest
from decomp.io.files import check_outputs, complete_or_absent, write_whole

FORMAT_VERSION = 3
"""The newest that is read: decompositions whose sources are groups of tokens are of it."""
TOKENS_VERSION = 2
"""What all other files are of, so that packages that know no groups read them."""
METADATA_KEY = "decomp"
SUFFIX = ".safetensors"
MANIFEST_SUFFIX = ".meta.json"
"""Of what `.pt` files do not say themselves."""
BLOCK = 1024
"""Rows that have a digest together."""
STATES = ("bias", "hidden", "remainder")
STORED_TENSORS = {"input_ids", "contributions", *STATES}

Header = dict[str, Any]
"""What a file says of itself: kind, version, how it was made, digests."""

logger = logging.getLogger(__name__)


class Storable(Protocol):
    """What is stored: the fields of a `Decomposition`."""

    @property
    def input_ids(self) -> Int[Tensor, " T"]: ...
    @property
    def decomposition_length(self) -> int: ...
    @property
    def rows(self) -> Any: ...
    @property
    def bias(self) -> Float[Tensor, "T E"]: ...
    @property
    def hidden(self) -> Float[Tensor, "T E"]: ...
    @property
    def older(self) -> Float[Tensor, "T E"]: ...
    @property
    def unembedding(self) -> Unembedding | None: ...
    @property
    def tokens(self) -> tuple[str, ...] | None: ...
    @property
    def about(self) -> Mapping[str, str]: ...
    @property
    def partition(self) -> Partition: ...


def block_digests(tensor: Tensor) -> list[str]:
    """Return the digests of a tensor's bytes, of `BLOCK` rows each."""
    flat = tensor.contiguous().reshape(len(tensor), -1).view(torch.uint8).numpy()
    return [digest([flat[first : first + BLOCK].tobytes()]) for first in range(0, len(flat), BLOCK)]


def header_digest(about: Mapping[str, Any]) -> str:
    """Return the digest of all that a header says but for the digest itself."""
    rest = {key: value for key, value in about.items() if key != "digest"}
    return digest([json.dumps(rest, ensure_ascii=True, sort_keys=True).encode()])


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what the file says of itself, in one metadata entry: the same content gives the same bytes.

    CannotWriteError, a ValueError, for a folder that can't be written into.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"version": TOKENS_VERSION, **about, "digests": {name: block_digests(t) for name, t in plain.items()}}
    header = {**header, "digest": header_digest(json.loads(json.dumps(header)))}
    with complete_or_absent(path) as beside:
        save_file(plain, beside, {METADATA_KEY: json.dumps(header, ensure_ascii=True, sort_keys=True)})


def read_header(path: Path, kind: str) -> tuple[Any, Header]:
    """Return the open file and what it says of itself. ValueError for a truncated, foreign, damaged or newer file."""
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    try:
        file = safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}): write it again") from error
    return file, check_header(path, (file.metadata() or {}).get(METADATA_KEY), kind)


def check_header(path: Path, content: str | bytes | None, kind: str) -> Header:
    """Return what a file of this package says of itself. ValueError for a foreign, damaged or newer file."""
    try:
        header = json.loads(content) if content else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged (what it says of itself is no JSON): write it again") from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise ValueError(f"{path} holds no {kind}: expected a file that this package wrote")
    version = header.get("version")
    if not isinstance(version, int) or not isinstance(header.get("about"), dict):
        raise ValueError(f"{path} does not say which version it is of, and how it was made: write it again")
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} has format version {version}, this package reads up to {FORMAT_VERSION}: upgrade it")
    if version < 2:
        logger.warning("%s has no digests (format version 1): damage to it would not show", path)
    elif header.get("digest") != header_digest(header):
        raise ValueError(f"{path} is damaged (what it says of itself has changed): write it again")
    return header


def check_block(path: Path, name: str, number: int, block: Tensor, digests: Sequence[str] | None) -> None:
    """Raise ValueError for rows of a stored tensor that are not those that were written, or not finite."""
    if digests is not None and (number >= len(digests) or block_digests(block) != [digests[number]]):
        raise ValueError(
            f"{path} is damaged: {name} has changed at rows {number * BLOCK} to {number * BLOCK + len(block) - 1}; "
            "write it again"
        )
    if block.is_floating_point() and not block.isfinite().all():
        raise ValueError(f"{path}: {name} has numbers that are not finite; write it again")


def read_tensor(path: Path, file: Any, name: str, header: Header) -> Tensor:
    """Return a stored tensor whole. ValueError where it is not what was written."""
    tensor: Tensor = file.get_tensor(name)
    digests = header["digests"].get(name) if "digests" in header else None
    for number, block in enumerate(tensor.split(BLOCK)):
        check_block(path, name, number, block, digests)
    return tensor


@dataclass(frozen=True)
class StoredRows:
    """Contributions in a file; a slice reads its rows, and once the block that they are in, to check it."""

    path: Path
    digests: tuple[str, ...] | None = None
    checked: set[int] = field(default_factory=set, compare=False, repr=False)
    """Blocks that are what was written."""

    def __getitem__(self, index: slice, /) -> Float[Tensor, "pairs E"]:
        with safe_open(self.path, "pt") as file:
            stored = file.get_slice("contributions")
            start, stop, _ = index.indices(stored.get_shape()[0])
            for number in range(start // BLOCK, -(-stop // BLOCK)):
                if number not in self.checked:
                    block = stored[number * BLOCK : (number + 1) * BLOCK]
                    check_block(self.path, "contributions", number, block, self.digests)
                    self.checked.add(number)
            return stored[index]


def unembedding_path(folder: Path, model: str) -> Path:
    """Return where a folder keeps the unembedding of a model, once for all its decompositions."""
    return folder / f"{model}_unembedding{SUFFIX}"


def save_unembedding(unembedding: Unembedding, path: Path, about: Mapping[str, str]) -> None:
    """Write an unembedding, with `about` the model that it is of."""
    tensors = {"weight": unembedding.weight}
    if unembedding.bias is not None:
        tensors["bias"] = unembedding.bias
    write_safetensors(path, tensors, {"kind": "unembedding", "softcap": unembedding.softcap, "about": dict(about)})


def check_model(path: Path, of_file: Mapping[str, str], about: Mapping[str, str]) -> None:
    """Raise ValueError for a shared file (unembedding) of another model than a decomposition is of."""
    if of_file.get("weights") != about.get("weights"):
        raise ValueError(
            f"{path} is of another model ({of_file.get('model')}, weights {of_file.get('weights')}) than the "
            f"decomposition ({about.get('model')}, weights {about.get('weights')}): decompose again, into another "
            "folder"
        )


def load_unembedding(path: Path, about: Mapping[str, str]) -> Unembedding:
    """Return a stored unembedding. ValueError if it is damaged, or of another model than `about` says."""
    _, header = read_header(path, "unembedding")
    check_model(path, header["about"], about)
    status = path.stat()
    return read_unembedding(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def read_unembedding(path: Path, *_changed: int) -> Unembedding:
    """Return what a file holds: windows share one. ValueError for damage, and for other shapes and dtypes."""
    file, header = read_header(path, "unembedding")
    names = set(file.keys())
    if not {"weight"} <= names <= {"weight", "bias"}:
        raise ValueError(f"{path} holds {', '.join(sorted(names))}, expected weight and bias: write it again")
    weight = read_tensor(path, file, "weight", header)
    bias = read_tensor(path, file, "bias", header) if "bias" in names else None
    if weight.ndim != 2 or not weight.is_floating_point() or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError(f"{path}: expected a weight (vocabulary, hidden) of numbers, not {tuple(weight.shape)}")
    softcap = header.get("softcap")
    if softcap is not None and not (isinstance(softcap, int | float) and softcap > 0):
        raise ValueError(f"{path}: expected a positive soft-cap of the logits, not {softcap!r}: write it again")
    return Unembedding(weight, bias, softcap)


def narrowed(contributions: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return contributions as they are stored. ValueError where a number does not fit."""
    if not contributions.isfinite().all():
        raise ValueError("some contributions are not finite: nothing is stored")
    stored = contributions if dtype is None else contributions.to(dtype)
    if not stored.isfinite().all():
        raise ValueError(f"some contributions are too large for {stored.dtype}: store them as bfloat16 or float32")
    return stored


def save(result: Storable, path: Path, *, dtype: torch.dtype | None = None, overwrite: bool = False) -> None:
    """Write `path`, and the unembedding beside it unless that is there.

    ValueError for an existing file, an unembedding of another model, a folder that can't be written, or
    contributions that `dtype` can't hold.
    """
    check_outputs([path], overwrite=overwrite)
    rows = narrowed(result.rows[: len(Pairs(result.partition, result.decomposition_length))], dtype)
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
    if not result.partition.is_tokens:
        tensors["sources"] = result.partition.labels
        about |= {"version": FORMAT_VERSION, "source_names": result.partition.names}
    if result.unembedding is not None:
        beside = unembedding_path(path.parent, result.about.get("model", "model"))
        if beside.exists():
            check_model(beside, read_header(beside, "unembedding")[1]["about"], result.about)
        else:
            save_unembedding(result.unembedding, beside, result.about)
    write_safetensors(path, tensors, about)


def read(path: Path, unembedding: Path | None = None) -> dict[str, Any]:
    """Return the fields of a stored `Decomposition`; contributions are read as they are asked for.

    The unembedding is read from beside, where it is there. `d_{id}.pt` are read with their `i_` and `o_` files;
    `unembedding` is then the file of the projection, if not that of the manifest. ValueError for a file that is
    missing, truncated, damaged, foreign, or newer than this package.
    """
    if path.suffix == ".pt":
        return read_pt_files(path, unembedding)
    file, header = read_header(path, "decomposition")
    if missing := STORED_TENSORS - set(file.keys()):
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: write it again")
    ids, *states = (read_tensor(path, file, name, header) for name in ("input_ids", *STATES))
    length, tokens = header.get("decomposition_length"), header.get("tokens")
    contributions = file.get_slice("contributions")
    partition = read_partition(path, file, header, len(ids))
    check_shapes(path, ids, states, contributions.get_shape(), contributions.get_dtype(), length, tokens, partition)
    beside = unembedding_path(path.parent, header["about"].get("model", "model"))
    head = load_unembedding(beside, header["about"]) if beside.is_file() else None
    check_ids(path, ids, head)
    digests = header["digests"]["contributions"] if "digests" in header else None
    return {
        "input_ids": ids,
        "decomposition_length": length,
        "rows": StoredRows(path, None if digests is None else tuple(digests)),
        **dict(zip(("bias", "hidden", "older"), states, strict=True)),
        "unembedding": head,
        "tokens": None if tokens is None else tuple(tokens),
        "about": header["about"],
        "partition": partition,
    }


def read_partition(path: Path, file: Any, header: Header, tokens: int) -> Partition:
    """Return which source each token of a stored decomposition belongs to. ValueError for labels that are no such."""
    if "sources" not in file.keys():  # noqa: SIM118  (an open file is no mapping)
        return Partition.tokens(tokens)
    labels, names = read_tensor(path, file, "sources", header), header.get("source_names")
    partition = Partition.of(labels)
    if len(labels) != tokens or not torch.equal(partition.labels, labels):
        raise ValueError(f"{path} has sources that are not those of its {tokens} tokens in order: write it again")
    if names is not None and len(names) != partition.count:
        raise ValueError(f"{path} has {len(names)} names for {partition.count} sources: write it again")
    return Partition(labels, None if names is None else tuple(names))


def stored_window(path: Path) -> dict[str, Any] | None:
    """Return which window of the corpus a file (or the manifest of `.pt` files) is of, None where it does not say.

    Nothing but what the file says of itself is read. ValueError for a truncated, foreign, damaged or newer file.
    """
    if path.suffix == SUFFIX:
        _, header = read_header(path, "decomposition")
    else:
        header = check_header(path, path.read_bytes(), "decomposition")
    window = json.loads(header["about"].get("window", "null"))
    return window if isinstance(window, dict) and {"article", "number"} <= set(window) else None


def check_shapes(
    path: Path,
    ids: Tensor,
    states: Sequence[Tensor],
    stored: Sequence[int],
    dtype: str,
    length: Any,
    tokens: Any,
    partition: Partition,
) -> None:
    """Raise ValueError for stored tensors whose shapes or dtypes do not fit together."""
    if ids.ndim != 1 or len(ids) == 0 or ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{path}: input_ids must be (tokens,) of int64, not {tuple(ids.shape)} of {ids.dtype}")
    for name, state in zip(STATES, states, strict=True):
        if state.ndim != 2 or state.shape != (len(ids), stored[-1]) or not state.is_floating_point():
            raise ValueError(
                f"{path}: {name} must be {len(ids)} tokens × {stored[-1]} numbers, "
                f"not {tuple(state.shape)} of {state.dtype}"
            )
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"{path} has the decomposition length {length!r}, expected one of at least 1: write it again")
    if stored[0] != (pairs := len(Pairs(partition, length))) or len(stored) != 2 or "F" not in dtype:
        raise ValueError(
            f"{path} has {stored[0]} contributions, {len(ids)} tokens need {pairs} of floating-point numbers "
            f"(they are {dtype}): write it again"
        )
    if tokens is not None and len(tokens) != len(ids):
        raise ValueError(f"{path} has {len(tokens)} token strings for {len(ids)} tokens: write it again")


def check_ids(path: Path, ids: Int[Tensor, " T"], unembedding: Unembedding | None) -> None:
    """Raise ValueError for token ids that are none of the vocabulary's."""
    vocab = None if unembedding is None else len(unembedding.weight)
    if int(ids.min()) < 0 or (vocab is not None and int(ids.max()) >= vocab):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise ValueError(f"{path} has token id {wrong}, the vocabulary has {vocab or 'none below 0'}: write it again")


def pt_paths(folder: Path, identifier: str) -> tuple[Path, Path, Path]:
    """Return the original names: contributions, input ids, hidden states."""
    d, i, o = (folder / f"{letter}_{identifier}.pt" for letter in "dio")
    return d, i, o


def pt_manifest_path(folder: Path, identifier: str) -> Path:
    """Return where it says what the `.pt` files of a window do not: model, window, tokens, digests."""
    return folder / f"{identifier}{MANIFEST_SUFFIX}"


def pt_unembedding_path(folder: Path, model: str) -> Path:
    """Return the original name of a model's projection."""
    return folder / f"{model}_proj_weights.pt"


def unembedding_beside(folder: Path, about: Mapping[str, str]) -> Path | None:
    """Return the projection that was written into a folder beside decompositions, where there is one."""
    path = pt_unembedding_path(folder, about["model"]) if "model" in about else None
    return path if path is not None and path.is_file() else None


def write_pt(path: Path, tensor: Tensor) -> None:
    """Write one tensor, the same content as the same bytes."""
    with complete_or_absent(path) as beside, beside.open("wb") as file:
        torch.save(tensor.detach().cpu().contiguous(), file)


def write_manifest(path: Path, files: Iterable[Path], about: Mapping[str, Any]) -> None:
    """Write what `.pt` files do not say themselves, and their digests."""
    header = {"version": TOKENS_VERSION, **about, "digests": {file.name: file_digest(file) for file in files}}
    header = json.loads(json.dumps(header))
    content = json.dumps({**header, "digest": header_digest(header)}, ensure_ascii=True, indent=1)
    write_whole(path, content.encode())


def read_manifest(path: Path, kind: str) -> Header | None:
    """Return what a manifest says, None where there is none. ValueError for a damaged one, or for changed files."""
    if not path.is_file():
        return None
    header = check_header(path, path.read_bytes(), kind)
    for name, expected in header["digests"].items():
        file = path.parent / name
        if file.is_file() and file_digest(file) != expected:
            raise ValueError(f"{file} is damaged, or of another window or model than {path} says: write it again")
    return header


def save_pt(
    result: Storable,
    folder: Path,
    identifier: str,
    model: str,
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> None:
    """Write the original files: `d` (min(W, T), T, E) with `d[r, t]` of source t−r at target t, `i`, `o`, projection,
    and beside them what these do not say.

    ValueError for existing files, a projection of another model, contributions that `dtype` can't hold, or a
    head that the format has no place for.
    """
    check_pt_unembedding(result.unembedding)
    if not result.partition.is_tokens:
        raise ValueError("the .pt format has tokens for sources, not groups of them: use safetensors")
    paths, manifest = pt_paths(folder, identifier), pt_manifest_path(folder, identifier)
    check_outputs([*paths, manifest], overwrite=overwrite)
    targets, sources = Pairs(result.partition, result.decomposition_length).indices()
    rows = narrowed(result.rows[: len(targets)], dtype)
    d = rows.new_zeros(min(result.decomposition_length, len(result.input_ids)), *result.hidden.shape)
    d[targets - sources, targets] = rows
    if result.unembedding is not None:
        keep_pt_unembedding(result.unembedding.weight, pt_unembedding_path(folder, model), result.about)
    manifest.unlink(missing_ok=True)
    for path, tensor in zip(paths, (d, result.input_ids[None], result.hidden[None]), strict=True):
        write_pt(path, tensor)
    about = {"kind": "decomposition", "tokens": result.tokens, "about": {**result.about, "model": model}}
    write_manifest(manifest, paths, about)


def check_pt_unembedding(unembedding: Unembedding | None) -> None:
    """Raise ValueError for a head of which the original format, a matrix, would lose a part."""
    if unembedding is None:
        return
    for what, part in (("a bias", unembedding.bias), ("a soft-cap of its logits", unembedding.softcap)):
        if part is not None:
            raise ValueError(
                f"the .pt format holds heads that are one matrix, this model's has {what}: use safetensors"
            )


def keep_pt_unembedding(weight: Float[Tensor, "V E"], path: Path, about: Mapping[str, str]) -> None:
    """Write the projection that all windows of a model share. ValueError where another model's is there."""
    manifest = path.with_suffix(MANIFEST_SUFFIX)
    if not path.exists():
        manifest.unlink(missing_ok=True)
        write_pt(path, weight)
    elif (header := unembedding_manifest(path)) is not None:
        check_model(path, header["about"], about)
        return
    elif not torch.equal(read_pt(path), weight.detach().cpu()):
        raise ValueError(f"{path} is of another model than {about.get('model')}: decompose into another folder")
    write_manifest(manifest, [path], {"kind": "unembedding", "about": dict(about)})


def unembedding_manifest(path: Path) -> Header | None:
    """Return what is known of a projection, None where nothing is. ValueError as for `read_manifest`."""
    manifest = path.with_suffix(MANIFEST_SUFFIX)
    if not manifest.is_file():
        return None
    times = [file.stat().st_mtime_ns for file in (path, manifest)]
    return read_unembedding_manifest(manifest, *times)


@lru_cache(maxsize=1)
def read_unembedding_manifest(manifest: Path, *_changed: int) -> Header | None:
    """Return what a projection's manifest says: windows share one."""
    return read_manifest(manifest, "unembedding")


def read_pt(path: Path) -> Tensor:
    """Return the tensor in a `.pt` file. ValueError for a file that is missing, broken, or holds none."""
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken pickle raises is anyone's guess
        raise ValueError(f"{path} is truncated or no tensor file: write it again") from error
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{path} holds no tensor: expected a file of the original format")
    return tensor


def read_pt_files(path: Path, unembedding: Path | None) -> dict[str, Any]:
    """Return the fields of a `Decomposition` from the original files, `path` being the `d_{id}.pt`.

    `bias` is all that `d` leaves of `o`: biases and sources older than the decomposition length.
    """
    if not path.name.startswith("d_"):
        raise ValueError(f"{path} is no d_{{id}}.pt: give the file of the contributions")
    d, ids, hidden = (read_pt(p) for p in pt_paths(path.parent, path.stem[2:]))
    ids, hidden = ids.reshape(-1), hidden.reshape(-1, hidden.shape[-1])
    check_pt(path, d, ids, hidden)
    header = read_manifest(pt_manifest_path(path.parent, path.stem[2:]), "decomposition")
    if header is None:
        say_unknown(path.parent)
    about = {} if header is None else header["about"]
    unembedding = unembedding or unembedding_beside(path.parent, about)
    head = None if unembedding is None else pt_unembedding(unembedding, about)
    check_ids(path, ids, head)
    if head is not None and head.weight.shape[1:] != hidden.shape[1:]:
        raise ValueError(f"{unembedding} has {head.weight.shape[-1]} dimensions, {path} {hidden.shape[-1]}")
    targets, sources = Pairs(Partition.tokens(len(ids)), len(d)).indices()
    tokens = None if header is None else header.get("tokens")
    return {
        "input_ids": ids,
        "decomposition_length": len(d),
        "rows": d[targets - sources, targets],
        "bias": hidden - d.to(hidden.dtype).sum(0),
        "hidden": hidden,
        "older": torch.zeros_like(hidden),
        "unembedding": head,
        "tokens": None if tokens is None else tuple(tokens),
        "about": about,
    }


def check_pt(path: Path, d: Tensor, ids: Tensor, hidden: Tensor) -> None:
    """Raise ValueError where the original files of a decomposition do not fit together, or are not finite."""
    if d.ndim != 3 or d.shape[1:] != hidden.shape or len(ids) != len(hidden) or not 0 < len(d) <= len(ids):
        raise ValueError(
            f"{path}: shapes {tuple(d.shape)}, {tuple(ids.shape)}, {tuple(hidden.shape)} do not fit together"
        )
    if ids.is_floating_point() or not (d.is_floating_point() and hidden.is_floating_point()):
        raise ValueError(f"{path}: dtypes {d.dtype}, {ids.dtype}, {hidden.dtype}: expected numbers, ids, numbers")
    if not (d.isfinite().all() and hidden.isfinite().all()):
        raise ValueError(f"{path}: contributions or hidden states are not finite; write it again")


@cache
def say_unknown(folder: Path) -> None:
    """Warn, once for a folder, of files that do not say what they are of."""
    logger.warning(
        "%s has .pt files that do not say which model and window they are of: that they fit together is not checked, "
        "and articles are counted file by file",
        folder,
    )


def pt_unembedding(path: Path, about: Mapping[str, str]) -> Unembedding:
    """Return the projection in a `.pt` file. ValueError where it is known to be of another model."""
    header = unembedding_manifest(path) if path.is_file() else None
    if header is not None and about:
        check_model(path, header["about"], about)
    elif about:
        say_unknown(path.parent)
    weight = read_pt(path)
    if weight.ndim != 2 or not weight.is_floating_point() or not weight.isfinite().all():
        raise ValueError(f"{path}: expected finite numbers (vocabulary, hidden), not {tuple(weight.shape)}")
    return Unembedding(weight)


def stored_identifiers(folder: Path) -> dict[str, Path]:
    """Return the identifiers of the decompositions in a folder, of either format, with their files."""
    ours = {p.stem: p for p in folder.glob(f"*{SUFFIX}") if not p.stem.endswith("_unembedding")}
    return {p.stem[2:]: p for p in folder.glob("d_*.pt")} | ours


def numbered(run: str, identifiers: Iterable[str]) -> dict[int, str]:
    """Return those identifiers that are `{run}_{n}`, by n."""
    matches = (re.fullmatch(re.escape(run) + r"_(\d+)", name) for name in identifiers)
    return {int(match[1]): match[0] for match in matches if match}
