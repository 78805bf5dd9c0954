"""`decomp measures`: what `--measure` takes."""

import textwrap

import click


@click.command("measures")
def command() -> None:
    """List the measures: what each one is, its unit, the functions it takes (its own first), and its source."""
    from decomp.measures.registry import find_measure, measure_names

    for measure in map(find_measure, measure_names()):
        functions = sorted(measure.functions, key=lambda name: name != measure.default)
        click.echo(measure.name)
        for what in (f"{measure.line} ({measure.citation})", f"unit: {measure.unit}"):
            click.echo(textwrap.indent(textwrap.fill(what, 100), "    "))
        click.echo(f"    functions: {', '.join(functions) or 'none'}")
