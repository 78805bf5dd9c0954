"""`decomp models`: what can be decomposed."""

import click


@click.command("models")
def command() -> None:
    """List the supported architectures and the demo models."""
    from decomp.models import ARCHITECTURES, DEMO_MODELS

    click.echo("Architectures (model_type of a hub model or folder):")
    for name, architecture in ARCHITECTURES.items():
        click.echo(f"  {name:<12}{architecture.__name__}")
    click.echo("Demo models (shipped):")
    for name, what in DEMO_MODELS.items():
        click.echo(f"  {name:<12}{what}")
