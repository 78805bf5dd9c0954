"""`decomp edges`: which edges of the computation graph a behaviour rests on, and whether they carry it."""

import click
import cloup

from decomp.cli import kinds, layout, options
from decomp.cli.main import DefaultGroup


@cloup.group(
    "edges",
    cls=DefaultGroup,
    modules={"score": "decomp.cli.edges_score", "check": "decomp.cli.edges_check"},
    examples="""
    decomp edges score demo-pronouns.json demo-opt --mask-value 0 -o edges.tsv
    decomp edges check edges.tsv demo-pronouns.json demo-opt --keep 10 --keep 100 --random 1
    """,
)
def command() -> None:
    """Score edges of the computation graph, and check circuits.

    Edges are between heads, MLPs, embedding and logits. `decomp edges PROMPTS MODEL` is `decomp edges score PROMPTS
    MODEL`. PROMPTS is JSON: {"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}]}.
    """


prompts_file = click.argument("prompts_file", metavar="PROMPTS", type=kinds.INPUT)
behaviour_options = layout.section(
    "Behaviour",
    options.choice(
        "--grad-function",
        ["logit", "prob", "logprob", "logprob_nats", "logit_exp"],
        "logit",
        help="Function of an answer at the last position: logprob in bits; logit_exp: the probability, its "
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
        help="What replaces an ablated output: that on the other prompt of the pair; zero; its mean over prompts at "
        "each position; over prompts and positions; the same two over the prompts of a given batch.",
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
