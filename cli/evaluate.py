"""`decomp evaluate`: how good measures are. Each subcommand is in the module `evaluate_{name}`."""

import cloup

from decomp.cli.main import LazyGroup

EVALUATIONS: tuple[str, ...] = ("faithfulness", "alignment", "agreement", "context")


@cloup.group(
    "evaluate",
    cls=LazyGroup,
    modules={name: f"decomp.cli.evaluate_{name}" for name in EVALUATIONS},
    examples="""
    decomp evaluate alignment demo-evidence.csv demo-opt --limit 10 --measure delta_lp
    echo "The keys to the cabinet are on the table." > keys.txt
    decomp evaluate faithfulness keys.txt demo-opt --measure delta_lp --measure attention --targets 5
    """,
)
def command() -> None:
    """Evaluate measures: each prints a table, and writes one."""
