"""`decomp measures`: the values of `--measure` and `--convention`."""

import textwrap

import click

from decomp.cli import layout


@layout.command("measures", "decomp measures")
def command() -> None:
    """List the measures and the conventions.

    A measure is listed with its unit, the functions it takes (its own first), and its source; a convention of
    --convention with the options that it sets. Also listed are the functions that measures attribute.
    """
    from decomp.measures.conventions import CONVENTIONS
    from decomp.measures.registry import find_measure, measure_names

    for measure in map(find_measure, measure_names()):
        functions = sorted(measure.functions, key=lambda name: name != measure.default)
        click.echo(measure.name)
        show(f"{measure.line} ({measure.citation})", f"unit: {measure.unit}")
        click.echo(f"    functions: {', '.join(functions) or 'none'}")
    click.echo("\n--convention")
    for convention in CONVENTIONS.values():
        click.echo(convention.name)
        attributed = ", ".join(f"{measure} {function}" for measure, function in convention.functions.items())
        labelled = {"sets": convention.as_options(), "functions:": attributed, "differs:": convention.differs}
        show(convention.line, *(f"{label} {text}" for label, text in labelled.items() if text))


def show(*paragraphs: str) -> None:
    """Print paragraphs, indented below the name that they describe."""
    for paragraph in paragraphs:
        click.echo(textwrap.indent(textwrap.fill(paragraph, 100), "    "))
