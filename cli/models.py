"""`decomp models`: the models that can be decomposed."""

from collections.abc import Iterator

import click

from decomp.cli import layout


@layout.command("models", "decomp models")
def command() -> None:
    """List the families of models that are supported.

    Also lists the tested versions of transformers, and the models and inputs that are shipped to try things with.
    """
    for line in family_lines():
        click.echo(line)


def family_lines() -> Iterator[str]:
    """Yield the lines of the list of families, one fact a line."""
    from decomp.models.families import DEMO_FILES, DEMO_MODELS, FAMILIES, TESTED_TRANSFORMERS
    from decomp.models.registry import model_types

    for family in FAMILIES:
        yield f"{family.model_type}: {family.name}"
        facts = {
            "examples": ", ".join(family.examples),
            "frozen": family.frozen,
            "rules": family.rules,
            "positions": family.positions,
            "verified": family.verified,
        }
        yield from (f"  {fact:<11}{text}" for fact, text in facts.items())
    shipped = {family.model_type for family in FAMILIES}
    yield from (f"{name}: from an installed package" for name in model_types() if name not in shipped)
    yield f"Tested with transformers {', '.join(TESTED_TRANSFORMERS)}."
    yield "Demo models (shipped):"
    yield from (f"  {name:<11}{what}" for name, what in DEMO_MODELS.items())
    yield "Demo inputs (shipped; a file of that name in the working folder comes first):"
    yield from (f"  {name:<20}{what}" for name, (_, what) in DEMO_FILES.items())
