"""The layout of commands' help: options under titles, and examples that work when they are pasted."""

from collections.abc import Callable
from textwrap import dedent
from typing import Any

import click
import cloup

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
"""A decorator that adds options to the function of a command."""


def metavar_of(param: click.Parameter) -> str | None:
    """Return the placeholder of a number in the help; None for other parameters, and for arguments."""
    if not isinstance(param, click.Option) or param.is_flag:
        return None
    names = {click.types.IntParamType: "N", click.types.FloatParamType: "NUMBER"}
    return next((name for kind, name in names.items() if isinstance(param.type, kind)), None)


class WithExamples(cloup.Command):
    """A command whose help ends with examples, each line as it is to be typed."""

    def __init__(self, *args: Any, examples: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = dedent(examples).strip().splitlines()
        for param in self.params:
            param.metavar = param.metavar or metavar_of(param)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, not wrapped, so that they can be pasted."""
        formatter.write("\n")
        formatter.write_heading("Examples")
        for line in self.examples:
            formatter.write(f"  {line}\n")


def command(name: str, examples: str) -> Callable[[Callable[..., Any]], WithExamples]:
    """Return the decorator that turns a function into a command; `examples` are lines for a shell."""
    return cloup.command(name, cls=WithExamples, examples=examples)


def section(title: str, *options: Decorator) -> Decorator:
    """Return options as one decorator; the help shows them below a title, in this order.

    A group of cloup belongs to one command, so each one has its own.
    """
    return lambda function: cloup.option_group(title, *options)(function)
