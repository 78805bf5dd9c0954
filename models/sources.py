"""Where a model is: a demo model, a folder, a hub id, or a GGUF file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from decomp.models.families import DATA, DEMO_MODELS

GGUF = ".gguf"
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class Source:
    """What transformers' `from_pretrained` is to be told."""

    name: str
    """As the person gave it."""
    place: str
    """A folder or a hub id."""
    gguf_file: str | None = None
    """The file in it that holds config, weights and tokenizer together."""

    def options(self, revision: str | None) -> dict[str, Any]:
        """Return keyword arguments of `from_pretrained` for config, tokenizer and weights alike."""
        return {"revision": revision or "main", **({"gguf_file": self.gguf_file} if self.gguf_file else {})}

    def failure(self, what: str, error: BaseException | None = None) -> ValueError:
        """Return a one-line error that says what failed, what a model needs, and why."""
        why = "" if error is None else f" ({one_line(error)})"
        return ValueError(f"can't {what} {self.name!r}, {self.what_is_needed()}{why}")

    def what_is_needed(self) -> str:
        """Return what would have been a model here."""
        if self.gguf_file:
            return "expected a whole GGUF file of a supported architecture"
        if Path(self.place).is_dir():
            return "the folder must hold config.json, weights (.safetensors or .bin) and tokenizer files"
        return f"expected a hub id, a folder, a .gguf file, or a demo model ({', '.join(DEMO_MODELS)})"


def source_of(name: str) -> Source:
    """Return where a model is. A folder that has a demo model's name comes before the demo model.

    ValueError for a GGUF file that is not there, is none, or can't be read for want of a package.
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


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say of which model a ValueError within is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"can't use model {name!r}: {error}") from error


def check_gguf_packages(name: str) -> None:
    """Raise ValueError where what transformers reads GGUF files with is not installed."""
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
