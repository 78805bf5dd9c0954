"""The command group `decomp`: commands are imported when they are named, torch only when one runs."""

import atexit
import errno
import gc
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import chain
from typing import Any

import click
import cloup
from click.shell_completion import CompletionItem

from decomp.cli.layout import WithExamples
from decomp.cli.signals import signals_end_the_command

SECTIONS = {
    "Begin here": ("demo", "models", "measures"),
    "What predictions rest on": ("score", "contrast", "context", "decompose", "deltalp"),
    "Tables and runs": ("table", "status"),
    "Look at it": ("show", "plot", "report"),
    "Where in the network": ("layers", "neurons", "edges"),
    "How good measures are": ("evaluate",),
}
"""The names of commands, each in a module of that name, below the titles that the help shows."""
COMMANDS = tuple(chain.from_iterable(SECTIONS.values()))


BEGAN = "decomp.began"
"""The key in a command's context under which its start time is kept."""


class InputError(click.ClickException):
    """The error for a mistake that a person can put right: shown in one line, exit code 2."""

    exit_code = 2


class LazyGroup(WithExamples, cloup.Group):
    """A group that imports each command from its module, and shows ValueErrors as lines, not tracebacks."""

    def __init__(
        self, *args: Any, modules: Mapping[str, str], titles: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.modules = modules
        self.titles = titles or {"Commands": tuple(modules)}
        # The names alone, from which click suggests the nearest one to what was mistyped.
        self.commands = {name: click.Command(name) for name in modules}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order in which they are shown."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command from its module, None where there is none of that name."""
        if cmd_name not in self.modules:
            return None
        command: click.Command = import_module(self.modules[cmd_name]).command
        return command

    def list_sections(self, ctx: click.Context, include_default_section: bool = True) -> list[cloup.Section]:
        """Return the commands below their titles."""
        return [
            cloup.Section(title, {name: found for name in names if (found := self.get_command(ctx, name))})
            for title, names in self.titles.items()
        ]

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command; its process, where it has one to itself, ends without a search of its memory for cycles.

        That takes a second after torch was imported, and all memory goes with the process anyway.
        """
        if not arguments and "args" not in options:
            atexit.register(gc.freeze)
        return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error that a person can put right ends it with one line."""
        ctx.meta.setdefault(BEGAN, time.monotonic())
        try:
            with signals_end_the_command():
                return super().invoke(ctx)
        except ValueError as error:
            raise InputError(str(error)) from error
        except BrokenPipeError:
            # The reader (head, less) has seen enough. What is still to be written at the end goes nowhere: else
            # Python would say so, and exit with a code of its own.
            sys.stderr.close()
            with suppress(OSError):  # a stream that is no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(f"{error.strerror}: free some space and run the command again") from error
            if error.filename is None:
                raise
            # A name that no file can have, or one that the system does not let read or written.
            raise InputError(f"can't use {error.filename}: {error.strerror}") from error


class DefaultGroup(LazyGroup):
    """A group whose first command may go without its name: `neurons ITEMS MODEL` for `neurons find ITEMS MODEL`."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names of the commands, and completions of the first command's first argument."""
        first = self.get_command(ctx, next(iter(self.modules)))
        assert first is not None
        return [*super().shell_complete(ctx, incomplete), *first.params[0].shell_complete(ctx, incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the first command's name before arguments that don't begin with a command."""
        if args and args[0] not in (*self.modules, *ctx.help_option_names):
            args = [next(iter(self.modules)), *args]
        return super().parse_args(ctx, args)


@cloup.group(
    cls=LazyGroup,
    modules={name: f"decomp.cli.{name}" for name in COMMANDS},
    titles=SECTIONS,
    examples="""
    decomp score --text "The keys to the cabinet are on the table." demo-opt
    decomp contrast --prompt "The keys to the cabinet" --target were --foil was demo-opt
    decomp score --help
    """,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="tokenwise-decomposition", prog_name="decomp")
def main() -> None:
    """Show which context tokens a language model's predictions rest on.

    Exact token-wise decomposition of hidden states (Oh & Schuler 2023) and ΔLP, the importance of each
    context token in bits; the other measures of the field on the same models, in the same table; where in the
    network it sits.
    """
