"""The command group. Commands are imported when they are named, torch only when one runs."""

import sys
from importlib import import_module

import click

COMMANDS = ("demo", "decompose", "deltalp", "score", "models")


class InputError(click.ClickException):
    """What a person can put right: one line, exit code 2."""

    exit_code = 2


class LazyGroup(click.Group):
    """Finds each command in the module of its name, and shows ValueErrors as lines, not tracebacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"decomp.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            raise InputError(str(error)) from error
        except BrokenPipeError:
            # The reader (head, less) has seen enough.
            sys.stderr.close()
            sys.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tokenwise-decomposition", prog_name="decomp")
def main() -> None:
    """Which context tokens does a language model's prediction rest on?

    Exact token-wise decomposition of hidden states (Oh & Schuler 2023) and ΔLP, the importance of each
    context token in bits. Corpora are text files of !ARTICLE sections.
    """
