"""`decomp edges`: which edges of the computation graph a behaviour rests on, and whether they carry it."""

import click

from decomp.cli import options
from decomp.cli.main import DefaultGroup


@click.group(
    "edges",
    cls=DefaultGroup,
    modules={"score": "decomp.cli.edges_score", "check": "decomp.cli.edges_check"},
)
def command() -> None:
    """Edges between heads, MLPs, embedding and logits: `decomp edges PROMPTS MODEL` scores them.

    PROMPTS is JSON: {"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}]}.
    """


behaviour_options = options.together(
    click.option(
        "--grad-function",
        type=click.Choice(["logit", "prob", "logprob", "logit_exp"]),
        default="logit",
        show_default=True,
        help="What counts of an answer at the last position: logprob in bits; logit_exp: the probability, its "
        "normaliser held fixed in derivatives.",
    ),
    click.option(
        "--answer-function",
        type=click.Choice(["avg_diff", "avg_val", "mse"]),
        default="avg_diff",
        show_default=True,
        help="Loss L: −(mean of answers − mean of wrong answers); −mean of answers; squared error against the answers.",
    ),
    click.option(
        "--ablation",
        type=click.Choice(["resample", "zero", "mean", "token_mean"]),
        default="resample",
        show_default=True,
        help="What takes an output's place: that on the other prompt of the pair; zero; its mean over prompts at each "
        "position; over prompts and positions.",
    ),
    click.option(
        "--clean-corrupt",
        "side",
        type=click.Choice(["clean", "corrupt"]),
        default="corrupt",
        show_default=True,
        help="The prompts that ablations come from.",
    ),
)
