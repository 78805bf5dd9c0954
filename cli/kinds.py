"""Types of the parameters of commands: values are checked as they are parsed, and completed without importing torch."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from decomp.io.amounts import parse_bytes
from decomp.io.names import suggested
from decomp.io.texts import STDIN
from decomp.measures.registry import FUNCTION_NAMES, measure_names
from decomp.models.families import DEMO_FILES, DEMO_MODELS, demo_file
from decomp.models.sources import cached_models, check_name
from decomp.runs.run import MANIFEST

if TYPE_CHECKING:
    Completions = list[CompletionItem[str]]
    Kind = click.ParamType[str]
else:  # before click 8.2 they take no type
    Completions, Kind = list, click.ParamType
DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu")
AMOUNTS = ("256MiB", "1GiB", "4GiB", "16GiB")


def beginning(incomplete: str, names: Iterable[str]) -> Completions:
    """Return completions: the names that begin with what was typed."""
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def paths_beginning(incomplete: str) -> list[str]:
    """Return the files and folders whose path begins with what was typed; folders end in a slash."""
    folder, start = os.path.split(incomplete)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    shown = [e for e in entries if e.name.startswith(start) and (start or not e.name.startswith("."))]
    return [os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "") for entry in shown]


class InputFile(click.Path):
    """The type of an input: an existing file or folder, or one of the inputs that are shipped to try things with."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path of the file. ValueError for one that does not exist."""
        path = demo_file(Path(value))
        check_there(path)
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completions:
        """Return the shipped files and those in the folder; without any, the shell completes files itself."""
        shipped = beginning(incomplete, DEMO_FILES) if incomplete else []
        if not shipped:
            return super().shell_complete(ctx, param, incomplete)
        return [*shipped, *map(CompletionItem, paths_beginning(incomplete))]


def check_there(path: Path) -> None:
    """Raise ValueError for a file or folder that does not exist; `-` is standard input, which does."""
    try:
        if str(path) != STDIN:
            path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ValueError(f"can't read {path}: {getattr(error, 'strerror', error)}") from error


class Corpus(InputFile):
    """The type of a corpus: a text, a table of texts, or a folder of these."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path of the corpus. ValueError for one that does not exist, and for the folder of a run."""
        path = super().convert(value, param, ctx)
        refuse_run(path)
        return path


def refuse_run(path: Path) -> None:
    """Raise ValueError for the folder of a run, given where a corpus is expected."""
    if (path / MANIFEST).is_file() and (path / "parts").is_dir():
        raise ValueError(f"{path} is the folder of a run, and no corpus: decomp table {path} writes its table")


class InputOrModel(InputFile):
    """The type of the first of two arguments: an input, or the model where an option gives the input."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; whether it exists is checked by the command, once it is known to be a file."""
        return demo_file(Path(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completions:
        """Return the inputs, or the models where an option gives the input."""
        by_option = ctx.params.get("text") is not None or ctx.params.get("prompt") is not None
        return (MODEL if by_option else INPUT).shell_complete(ctx, param, incomplete)


class ModelName(Kind):
    """The type of a model's name: a demo model, a hub id, a folder, or a GGUF file."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. ValueError for one that can be seen, without loading it, to be no model."""
        check_name(value)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completions:
        """Return the demo models, the hub's models on this machine, folders, and GGUF files."""
        paths = [path for path in paths_beginning(incomplete) if path.endswith(("/", ".gguf"))]
        return beginning(incomplete, dict.fromkeys([*DEMO_MODELS, *cached_models(), *paths]))


class ModelLabel(ModelName):
    """The type of a model's name that serves only as a label: the model need not exist."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, unchecked."""
        return str(value)


class TableOrModel(ModelLabel):
    """The type of a file of tables, or of the model where an option gives the text."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completions:
        """Return the models where an option gives the text; else the shell completes files itself."""
        if ctx.params.get("text") is not None:
            return super().shell_complete(ctx, param, incomplete)
        return [CompletionItem(incomplete, type="file")]


class KnownName(Kind):
    """The type of one name out of several, which are looked up when a value is parsed."""

    name = "text"

    def __init__(self, what: str, names: Callable[[], Sequence[str]], shown: Sequence[str] | None = None) -> None:
        self.what, self.names, self.shown = what, names, shown

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. Fails for an unknown one, with the nearest that is known."""
        if value not in self.names():
            self.fail(f"unknown {self.what} {value!r}: {suggested(value, self.names())}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completions:
        """Return the names that begin with what was typed."""
        return beginning(incomplete, self.shown or self.names())

    complete = shell_complete  # for an option that may have other values, too


class MemoryAmount(Kind):
    """The type of an amount of memory, such as 800MiB."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the amount as it was given. Fails for a text that is no amount."""
        try:
            parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completions:
        """Return some common amounts."""
        return beginning(incomplete, AMOUNTS)


class Device(Kind):
    """The type of a torch device, given by its name."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. Fails for a text that can't be a device; whether the device exists is torch's to say."""
        if not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", str(value)):
            self.fail(f"unknown device {value!r}: choose one of {', '.join(DEVICES)}, or cuda:1", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completions:
        """Return the devices that this machine may have."""
        return beginning(incomplete, (*DEVICES, "cuda:0", "cuda:1"))


def columns_of(parameter: str, end: str = "") -> Callable[[click.Context, click.Parameter, str], Completions]:
    """Return the completion of column names, from the table that another parameter names; `end` is put after each."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> Completions:
        from decomp.io.records import SUFFIXES, rows_in
        from decomp.io.texts import suffix_of

        # Behind an option that lacks its value, arguments are not told apart yet.
        given = [ctx.params.get(parameter), *map(Path, ctx.args)]
        tables = [path for path in given if isinstance(path, Path) and suffix_of(path) in SUFFIXES]
        try:
            return beginning(incomplete, [f"{name}{end}" for name in next(rows_in(tables[0])).values])
        except (ValueError, OSError, StopIteration, IndexError):
            return []

    return complete


INPUT, CORPUS, INPUT_OR_MODEL, MODEL, LABEL = InputFile(), Corpus(), InputOrModel(), ModelName(), ModelLabel()
TABLE_OR_MODEL = TableOrModel()
MEMORY, DEVICE, MEASURE = MemoryAmount(), Device(), KnownName("measure", measure_names)


def function(shown: Sequence[str]) -> KnownName:
    """Return the type of an attributed function; measures check which they take, and `shown` ones are completed."""
    return KnownName("function", lambda: FUNCTION_NAMES, shown)
