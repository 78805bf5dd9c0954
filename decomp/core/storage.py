"""Storing decompositions and unembeddings: as safetensors, or as the original research code's `.pt` files.

Every file says how it was made and has digests of all that it holds, by blocks of rows, so that damage shows where
rows are read: those of `.pt` files are in a manifest beside them. `read` gives the fields of a `Decomposition`.
"""

import json
import logging
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
from decomp.core.file_names import SUFFIX
from decomp.core.pairs import Pairs
from decomp.core.partition import Partition
from decomp.io.digests import digest, file_digest
from decomp.io.files import check_outputs, complete_or_absent, write_whole

FORMAT_VERSION = 3
"""The newest version of the format that is read: that of decompositions whose sources are groups of tokens."""
TOKENS_VERSION = 2
"""The version of all other files, which older releases that know no groups can read, too."""
METADATA_KEY = "decomp"
MANIFEST_SUFFIX = ".meta.json"
"""The suffix of manifests, which hold what `.pt` files do not say themselves."""
BLOCK = 1024
"""The number of rows that have one digest together."""
STATES = ("bias", "hidden", "remainder")
STORED_TENSORS = {"input_ids", "contributions", *STATES}

Header = dict[str, Any]
"""The description that a file has of itself: kind, version, model and rules, digests."""

logger = logging.getLogger(__name__)


class Storable(Protocol):
    """The fields of a `Decomposition` that are stored; `Decomposition` says what each holds."""

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
    """Return the digests of a tensor's bytes, one for each `BLOCK` rows."""
    flat = tensor.contiguous().reshape(len(tensor), -1).view(torch.uint8).numpy()
    return [digest([flat[first : first + BLOCK].tobytes()]) for first in range(0, len(flat), BLOCK)]


def header_digest(about: Mapping[str, Any]) -> str:
    """Return the digest of a header's content, the entry of the digest itself left out."""
    rest = {key: value for key, value in about.items() if key != "digest"}
    return digest([json.dumps(rest, ensure_ascii=True, sort_keys=True).encode()])


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and the description `about` to a file; the same content gives the same bytes.

    CannotWriteError, a ValueError, for a folder that can't be written into.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"version": TOKENS_VERSION, **about, "digests": {name: block_digests(t) for name, t in plain.items()}}
    header = {**header, "digest": header_digest(json.loads(json.dumps(header)))}
    with complete_or_absent(path) as beside:
        save_file(plain, beside, {METADATA_KEY: json.dumps(header, ensure_ascii=True, sort_keys=True)})


def read_header(path: Path, kind: str) -> tuple[Any, Header]:
    """Return an open file and its header. ValueError for a truncated, foreign, damaged or newer file."""
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    try:
        file = safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}): write it again") from error
    return file, check_header(path, (file.metadata() or {}).get(METADATA_KEY), kind)


def check_header(path: Path, content: str | bytes | None, kind: str) -> Header:
    """Return the header in a file's metadata. ValueError for a foreign, damaged or newer file."""
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
    """Raise ValueError for a block of stored rows that differs from what was written, or is not finite."""
    if digests is not None and (number >= len(digests) or block_digests(block) != [digests[number]]):
        raise ValueError(
            f"{path} is damaged: {name} has changed at rows {number * BLOCK} to {number * BLOCK + len(block) - 1}; "
            "write it again"
        )
    if block.is_floating_point() and not block.isfinite().all():
        raise ValueError(f"{path}: {name} has numbers that are not finite; write it again")


def read_tensor(path: Path, file: Any, name: str, header: Header) -> Tensor:
    """Return a whole stored tensor. ValueError where it differs from what was written."""
    tensor: Tensor = file.get_tensor(name)
    digests = header["digests"].get(name) if "digests" in header else None
    for number, block in enumerate(tensor.split(BLOCK)):
        check_block(path, name, number, block, digests)
    return tensor


@dataclass(frozen=True)
class StoredRows:
    """The contributions in a file: a slice reads those rows, and checks the blocks that hold them at the first read."""

    path: Path
    digests: tuple[str, ...] | None = None
    checked: set[int] = field(default_factory=set, compare=False, repr=False)
    """The numbers of the blocks that have been checked."""

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
    """Return the path of a model's unembedding, which all decompositions of a folder share."""
    return folder / f"{model}_unembedding{SUFFIX}"


def save_unembedding(unembedding: Unembedding, path: Path, about: Mapping[str, str]) -> None:
    """Write an unembedding to a file; `about` describes its model."""
    tensors = {"weight": unembedding.weight}
    if unembedding.bias is not None:
        tensors["bias"] = unembedding.bias
    write_safetensors(path, tensors, {"kind": "unembedding", "softcap": unembedding.softcap, "about": dict(about)})


def check_model(path: Path, of_file: Mapping[str, str], about: Mapping[str, str]) -> None:
    """Raise ValueError where a shared file (an unembedding) belongs to another model than a decomposition."""
    if of_file.get("weights") != about.get("weights"):
        raise ValueError(
            f"{path} is of another model ({of_file.get('model')}, weights {of_file.get('weights')}) than the "
            f"decomposition ({about.get('model')}, weights {about.get('weights')}): decompose again, into another "
            "folder"
        )


def load_unembedding(path: Path, about: Mapping[str, str]) -> Unembedding:
    """Return a stored unembedding. ValueError where it is damaged, or of another model than `about` says."""
    _, header = read_header(path, "unembedding")
    check_model(path, header["about"], about)
    status = path.stat()
    return read_unembedding(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def read_unembedding(path: Path, *_changed: int) -> Unembedding:
    """Return the unembedding in a file, read once for all windows. ValueError for damage, other shapes or dtypes."""
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
    """Return contributions in the dtype in which they are stored. ValueError for a number that it can't hold."""
    if not contributions.isfinite().all():
        raise ValueError("some contributions are not finite: nothing is stored")
    stored = contributions if dtype is None else contributions.to(dtype)
    if not stored.isfinite().all():
        raise ValueError(f"some contributions are too large for {stored.dtype}: store them as bfloat16 or float32")
    return stored


def save(result: Storable, path: Path, *, dtype: torch.dtype | None = None, overwrite: bool = False) -> None:
    """Write a decomposition to `path`, and its unembedding beside it unless one is there.

    ValueError for an existing file without `overwrite`, an unembedding of another model beside it, a folder that can't
    be written into, and contributions that `dtype` can't hold.
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
        save_unembedding_once(result.unembedding, path.parent, result.about)
    write_safetensors(path, tensors, about)


def save_unembedding_once(unembedding: Unembedding, folder: Path, about: Mapping[str, str]) -> None:
    """Write an unembedding into a folder unless it is there. ValueError for one of another model that is there."""
    path = unembedding_path(folder, about.get("model", "model"))
    if path.exists():
        check_model(path, read_header(path, "unembedding")[1]["about"], about)
    else:
        save_unembedding(unembedding, path, about)


def read(path: Path, unembedding: Path | None = None) -> dict[str, Any]:
    """Return the fields of a stored `Decomposition`; contributions are read as they are needed.

    `unembedding` is the file of the language-model head, by default the one beside `path`, if there is one. An
    original file `d_{id}.pt` is read with `i_{id}.pt` and `o_{id}.pt`. ValueError for a file that is missing,
    truncated, damaged, foreign, or newer than this package.
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
    """Return the sources of a stored decomposition. ValueError for labels that are not one integer for each token."""
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
    """Return the window of the corpus that a file's header (or `.pt` files' manifest) names; None where it names none.

    Only the header is read. ValueError for a truncated, foreign, damaged or newer file.
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
    """Raise ValueError for token ids outside of the vocabulary."""
    vocab = None if unembedding is None else len(unembedding.weight)
    if int(ids.min()) < 0 or (vocab is not None and int(ids.max()) >= vocab):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise ValueError(f"{path} has token id {wrong}, the vocabulary has {vocab or 'none below 0'}: write it again")


def pt_paths(folder: Path, identifier: str) -> tuple[Path, Path, Path]:
    """Return the paths of the original format's three files: contributions, input ids, hidden states."""
    d, i, o = (folder / f"{letter}_{identifier}.pt" for letter in "dio")
    return d, i, o


def pt_manifest_path(folder: Path, identifier: str) -> Path:
    """Return the path of the manifest of a window's `.pt` files, with their model, window, tokens and digests."""
    return folder / f"{identifier}{MANIFEST_SUFFIX}"


def pt_unembedding_path(folder: Path, model: str) -> Path:
    """Return the path of a model's projection to the vocabulary in the original format."""
    return folder / f"{model}_proj_weights.pt"


def unembedding_beside(folder: Path, about: Mapping[str, str]) -> Path | None:
    """Return the path of the projection in a folder that belongs to the described model; None where none does."""
    path = pt_unembedding_path(folder, about["model"]) if "model" in about else None
    return path if path is not None and path.is_file() else None


def write_pt(path: Path, tensor: Tensor) -> None:
    """Write one tensor to a `.pt` file; the same content gives the same bytes."""
    with complete_or_absent(path) as beside, beside.open("wb") as file:
        torch.save(tensor.detach().cpu().contiguous(), file)


def write_manifest(path: Path, files: Iterable[Path], about: Mapping[str, Any]) -> None:
    """Write the manifest of `.pt` files: the description `about`, and the files' digests."""
    header = {"version": TOKENS_VERSION, **about, "digests": {file.name: file_digest(file) for file in files}}
    header = json.loads(json.dumps(header))
    content = json.dumps({**header, "digest": header_digest(header)}, ensure_ascii=True, indent=1)
    write_whole(path, content.encode())


def read_manifest(path: Path, kind: str) -> Header | None:
    """Return a manifest's content; None where there is no manifest. ValueError for a damaged one, or changed files."""
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
    """Write a decomposition in the original research code's format.

    Its files are `d`, the contributions, of shape (min(W, T), T, E), where `d[r, t]` is that of source t−r to target t;
    `i`, the input ids; `o`, the hidden states; the projection to the vocabulary; and a manifest of what these do not
    say. ValueError for existing files without `overwrite`, a projection of another model, contributions that `dtype`
    can't hold, and a head that the format can't store.
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
    """Raise ValueError for a head that is more than a matrix, which is all that the original format can store."""
    if unembedding is None:
        return
    for what, part in (("a bias", unembedding.bias), ("a soft-cap of its logits", unembedding.softcap)):
        if part is not None:
            raise ValueError(
                f"the .pt format holds heads that are one matrix, this model's has {what}: use safetensors"
            )


def keep_pt_unembedding(weight: Float[Tensor, "V E"], path: Path, about: Mapping[str, str]) -> None:
    """Write the projection that all windows of a model share. ValueError where one of another model is there."""
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
    """Return the manifest of a projection; None where it has none. ValueError for a damaged one, or a changed file."""
    manifest = path.with_suffix(MANIFEST_SUFFIX)
    if not manifest.is_file():
        return None
    times = [file.stat().st_mtime_ns for file in (path, manifest)]
    return read_unembedding_manifest(manifest, *times)


@lru_cache(maxsize=1)
def read_unembedding_manifest(manifest: Path, *_changed: int) -> Header | None:
    """Return the manifest of a projection, read once for all windows."""
    return read_manifest(manifest, "unembedding")


def read_pt(path: Path) -> Tensor:
    """Return the tensor in a `.pt` file. ValueError for a file that is missing, broken, or holds something else."""
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
    """Return the fields of a `Decomposition` from the original format's files, of which `path` is `d_{id}.pt`.

    The bias is all that the contributions leave of the hidden states: biases, and sources older than the decomposition
    length.
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
    tokens = None if header is None else header.get("tokens")
    head = pt_head(path, unembedding or unembedding_beside(path.parent, about), about, hidden.shape[-1])
    check_ids(path, ids, head)
    targets, sources = Pairs(Partition.tokens(len(ids)), len(d)).indices()
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


def pt_head(path: Path, unembedding: Path | None, about: Mapping[str, str], width: int) -> Unembedding | None:
    """Return the head of a decomposition in `.pt` files, None without a file of it. ValueError for another width."""
    if unembedding is None:
        return None
    head = pt_unembedding(unembedding, about)
    if head.weight.shape[1] != width:
        raise ValueError(f"{unembedding} has {head.weight.shape[-1]} dimensions, {path} {width}")
    return head


def check_pt(path: Path, d: Tensor, ids: Tensor, hidden: Tensor) -> None:
    """Raise ValueError where the original format's tensors do not fit together, or are not finite."""
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
    """Warn, once for each folder, of `.pt` files without a manifest that says what they belong to."""
    logger.warning(
        "%s has .pt files that do not say which model and window they are of: that they fit together is not checked, "
        "and articles are counted file by file",
        folder,
    )


def pt_unembedding(path: Path, about: Mapping[str, str]) -> Unembedding:
    """Return the projection in a `.pt` file as an unembedding. ValueError where it is of another model."""
    header = unembedding_manifest(path) if path.is_file() else None
    if header is not None and about:
        check_model(path, header["about"], about)
    elif about:
        say_unknown(path.parent)
    weight = read_pt(path)
    if weight.ndim != 2 or not weight.is_floating_point() or not weight.isfinite().all():
        raise ValueError(f"{path}: expected finite numbers (vocabulary, hidden), not {tuple(weight.shape)}")
    return Unembedding(weight)
