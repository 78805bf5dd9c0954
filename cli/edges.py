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
    """Score edges between heads, MLPs, embedding and logits: `decomp edges PROMPTS MODEL`.

    PROMPTS is JSON: {"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}]}.
    """


prompts_file = click.argument("prompts_file", metavar="PROMPTS", type=options.FILE)
behaviour_options = options.together(
    options.choice(
        "--grad-function",
        ["logit", "prob", "logprob", "logprob_nats", "logit_exp"],
        "logit",
        help="What counts of an answer at the last position: logprob in bits; logit_exp: the probability, its "
        "normaliser held fixed in derivatives.",
    ),
    options.choice(
        "--answer-function",
        ["avg_diff", "avg_val", "mse", "kl"],
        "avg_diff",
        help="Loss L: −(mean of answers − mean of wrong answers); −mean of answers; squared error against the answers; "
        "divergence from the clean prediction, in bits.",
    ),
    options.choice(
        "--ablation",
        ["resample", "zero", "mean", "token_mean", "batch_mean", "batch_token_mean"],
        "resample",
        help="What takes an output's place: that on the other prompt of the pair; zero; its mean over prompts at each "
        "position; over prompts and positions; the same two over the prompts of a given batch.",
    ),
    options.choice(
        "--clean-corrupt",
        ["corrupt", "clean", "both"],
        "corrupt",
        name="side",
        help="The prompts that ablations come from; both: means over clean and corrupt ones.",
    ),
    click.option("--batch-by", metavar="N|FIELD", help="The given batches: N prompts in a row, or a field of them."),
)
