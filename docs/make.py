"""Writes docs/commands.md from the commands' own help: `python docs/make.py`."""

from collections.abc import Iterator
from pathlib import Path

import click

from decomp.cli.main import main

PAGE = Path(__file__).parent / "commands.md"
WIDTH = 100


def pages(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    """Help of a command and of all below it."""
    settings = {**main.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = command.context_class(command, info_name=name, parent=parent, **settings)
    yield f"## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from pages(found, child, context)


def page() -> str:
    return "# Commands\n\nMade from `--help` by `python docs/make.py`.\n\n" + "\n".join(pages(main, "decomp"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
