"""Finding a model by name: a demo model that is shipped, a folder, a hub id, or a GGUF file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from decomp.models.families import DATA, DEMO_MODELS
from decomp.models.registry import class_of, model_types

GGUF = ".gguf"
GGUF_MAGIC = b"GGUF"
ALIKE = 0.8
"""The similarity (0 to 1) from which on an unknown name is taken for a mistyped one, and the right one suggested."""


@dataclass(frozen=True)
class Source:
    """The place of a model, with the arguments by which transformers' `from_pretrained` loads it."""

    name: str
    """The name that the user gave."""
    place: str
    """The folder, or the hub id."""
    gguf_file: str | None = None
    """The GGUF file in the folder, which holds config, weights and tokenizer; None for other models."""

    def options(self, revision: str | None) -> dict[str, Any]:
        """Return the keyword arguments of `from_pretrained`, the same for config, tokenizer and weights."""
        return {"revision": revision or "main", **({"gguf_file": self.gguf_file} if self.gguf_file else {})}

    def failure(self, what: str, error: BaseException | None = None) -> ValueError:
        """Return an error of one line that says what failed, why, and what a model needs."""
        why = "" if error is None else f" ({one_line(error)})"
        return ValueError(f"can't {what} {self.name!r}, {self.what_is_needed()}{why}")

    def what_is_needed(self) -> str:
        """Return a text that says what a model of this kind consists of."""
        if self.gguf_file:
            return "expected a whole GGUF file of a supported architecture"
        if Path(self.place).is_dir():
            return "the folder must hold config.json, weights (.safetensors or .bin) and tokenizer files"
        return f"expected a hub id, a folder, a .gguf file, or a demo model ({', '.join(DEMO_MODELS)})"


def source_of(name: str) -> Source:
    """Return the place of a model by its name. A folder with a demo model's name comes before the demo model.

    ValueError for a GGUF file that is missing, is of another format, or needs a package that is not installed.
    """
    if name in DEMO_MODELS and not Path(name).is_dir():
        return Source(name, str(DATA / name))
    if not name.endswith(GGUF) or Path(name).is_dir():
        return Source(name, name)
    check_gguf_packages(name)
    path = Path(name)
    if path.is_file():
        check_gguf(path)
        return Source(name, str(path.parent), path.name)
    parts = name.split("/")
    if len(parts) < 3 or path.is_absolute() or Path(parts[0]).exists():
        raise ValueError(f"there is no file {name}: expected a .gguf file, or owner/repository/file.gguf of the hub")
    return Source(name, "/".join(parts[:2]), "/".join(parts[2:]))


def check_revision(name: str, revision: str | None) -> None:
    """Raise ValueError for a revision of a folder, a GGUF file or a demo model, which have none."""
    if revision is not None and Path(source_of(name).place).is_dir():
        raise ValueError(f"{name} is no model of the hub, which alone have revisions: leave out {revision!r}")


def check_name(name: str) -> None:
    """Raise ValueError for a name that can't be that of a model that can be decomposed; nothing is loaded, nor torch.

    Such names are folders without a config or with one of an unsupported architecture, GGUF files of another format,
    names that can't be hub ids, and hub ids that are not on this machine while the hub may not be asked.
    """
    if not name:
        raise ValueError(f"the model has no name: give a hub id, a folder, or one of {', '.join(DEMO_MODELS)}")
    source = source_of(name)
    if source.gguf_file:
        return
    config = config_of(source)
    if config is None:
        raise source.failure("load model") if Path(source.place).is_dir() else not_found(source)
    if config.get("model_type") and config["model_type"] not in model_types():
        with named(name):
            class_of(SimpleNamespace(**config))


def config_of(source: Source) -> dict[str, Any] | None:
    """Return the config of a model; an empty one where it has to be fetched from the hub first; None without one.

    ValueError for a damaged config.
    """
    folder = Path(source.place)
    path = folder / "config.json" if folder.is_dir() else cached_config(source)
    if path is None:
        return {} if may_be_on_hub(source.name) else None
    try:
        config = json.loads(path.read_text("utf-8")) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise source.failure("load model", error) from error
    return config if isinstance(config, dict) else None


def cached_config(source: Source) -> Path | None:
    """Return the path of a hub model's config on this machine; None where its main revision is not here.

    ValueError for a name that can't be a hub id.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(source.place, "config.json")
    except ValueError as error:
        raise source.failure("load model", error) from error
    return Path(found) if isinstance(found, str) else None


def may_be_on_hub(name: str) -> bool:
    """Return whether a model may be fetched from the hub, or is on this machine in another revision."""
    from huggingface_hub import constants

    return name in cached_models() or not (constants.HF_HUB_OFFLINE or get_close_matches(name, DEMO_MODELS, 1, ALIKE))


def cached_models() -> list[str]:
    """Return the ids of the hub's models that are on this machine."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*")
    return sorted(folder.name.removeprefix("models--").replace("--", "/") for folder in folders)


def not_found(source: Source) -> ValueError:
    """Return the error for a model that is not found, with the most similar name on this machine, if any."""
    near = get_close_matches(source.name, [*DEMO_MODELS, *cached_models()], 1, ALIKE)
    if near:
        return ValueError(f"can't load model {source.name!r}: did you mean {near[0]}?")
    why = ValueError("it is not on this machine, and the hub is not to be asked: HF_HUB_OFFLINE is set")
    return source.failure("load model", why)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Add the model's name to a ValueError that is raised while the context is open."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"can't use model {name!r}: {error}") from error


def check_gguf_packages(name: str) -> None:
    """Raise ValueError where the packages by which transformers reads GGUF files are not installed."""
    if missing := [package for package in ("gguf", "accelerate") if find_spec(package) is None]:
        raise ValueError(
            f"{name} needs the package {' and '.join(missing)} to be read: pip install 'tokenwise-decomposition[real]'"
        )


def check_gguf(path: Path) -> None:
    """Raise ValueError for a file that does not begin as GGUF files do."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from error
    if beginning != GGUF_MAGIC:
        raise ValueError(f"{path} is no GGUF file: it begins with {beginning!r}, not {GGUF_MAGIC!r}")


def one_line(error: BaseException, longest: int = 200) -> str:
    """Return an error's message in one line, with its type where the message says little."""
    message = " ".join(str(error).split())
    if len(message) > longest:
        message = f"{message[:longest]} …"
    return message if isinstance(error, ValueError | OSError) and message else f"{type(error).__name__}: {message}"
