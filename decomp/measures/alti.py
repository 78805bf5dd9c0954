"""ALTI-Logit: what each layer's attention adds to a logit, tracked to the input tokens (Ferrando et al. 2023)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.ablation import Unembedding, next_log2_prob
from decomp.core.model import Model
from decomp.core.operating_point import FrozenBranch, FrozenStage, OperatingPoint
from decomp.core.readout_rows import ReadoutRows
from decomp.measures.maps import normalise_rows, recorded
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores
from decomp.measures.transformed import AttentionStep, attention_steps, blockwise


def alti_rows(step: AttentionStep, targets: range) -> Float[Tensor, "targets T"]:
    """Return max(0, ‖y_i‖_1 − ‖y_i − T_i(x_j)‖_1), where y_i = Σ_j T_i(x_j) + b_O (Ferrando et al. 2022, eq. 8)."""
    whole = step.total[targets.start : targets.stop]
    rest = (whole[:, None] - step.added_and_residual(targets)).abs().sum(-1)
    return (whole.abs().sum(-1, keepdim=True) - rest).clamp(min=0)


@dataclass(frozen=True)
class BranchReadout:
    """The linear function of one branch's output that a logit is, on the direct path through residuals and norms."""

    branch: FrozenBranch
    operator_output: Float[Tensor, "T D"]
    """The function as vectors to multiply with the operator's output, before any norm after it."""
    branch_output: Float[Tensor, "T D"]
    """The function as vectors to multiply with what the branch adds to the residual stream."""

    def constant(self) -> Float[Tensor, " T"]:
        """Return the parts of the attention's output bias, and of the β of the norm after it, in the logit."""
        bias, norm = self.branch.attention.attention.output.bias, self.branch.norm_out
        constant = read_bias(self.operator_output, bias)
        return constant if norm is None else constant + read_bias(self.branch_output, norm.norm.bias)


@dataclass(frozen=True)
class StageReadout:
    """The linear functions of one stage's branches, and of the stream after the stage, that a logit is."""

    stage: FrozenStage
    attentions: tuple[BranchReadout, ...]
    mlps: tuple[BranchReadout, ...]
    after: Float[Tensor, "T D"]

    def constant(self) -> Float[Tensor, " T"]:
        """Return the parts of constants in the logit: of attention, and of the norm after the sum; none of an MLP's."""
        constant = self.after.new_zeros(len(self.after)) + sum(attention.constant() for attention in self.attentions)
        return constant if self.stage.norm is None else constant + read_bias(self.after, self.stage.norm.norm.bias)


def read_bias(g: Float[Tensor, "T D"], bias: Float[Tensor, " D"] | None) -> Float[Tensor, " T"]:
    """Return the product of each position's readout with a bias; zero where the bias is None."""
    return g.new_zeros(len(g)) if bias is None else g @ bias


def read_branch(branch: FrozenBranch, g: Float[Tensor, "T D"], at: ReadoutRows) -> BranchReadout:
    """Return the readout of a branch, from the readout g of the stream after the stage's sum."""
    return BranchReadout(branch, g if branch.norm_out is None else branch.norm_out.pull(g, at), g)


def stage_readouts(point: OperatingPoint, g: Float[Tensor, "T D"]) -> list[list[StageReadout]]:
    """Return for each block the readouts of its stages, from the readout g of the last block's output."""
    at = ReadoutRows(range(len(g)), True, g.device)
    found: list[list[StageReadout]] = []
    for block in reversed(point.blocks):
        found.insert(0, [])
        for stage in reversed(block):
            after, g = g, g if stage.norm is None else stage.norm.pull(g, at)
            reads = [read_branch(branch, g, at) for branch in stage.branches]
            attentions = tuple(r for r in reads if r.branch.operator.mixes_positions)
            mlps = tuple(r for r in reads if not r.branch.operator.mixes_positions)
            found[0].insert(0, StageReadout(stage, attentions, mlps, after))
    return found


def read_at_the_end(
    point: OperatingPoint, direction: Float[Tensor, "T E"]
) -> tuple[Float[Tensor, "T D"], Float[Tensor, " T"]]:
    """Return the readout of the last block's output that a direction of final hidden states gives, and a constant."""
    g, constant = direction, direction.new_zeros(len(direction))
    if point.project_out is not None:
        constant = constant + read_bias(g, point.project_out.bias)
        g = g @ point.project_out.weight.T
    if point.final_norm is not None:
        constant = constant + read_bias(g, point.final_norm.norm.bias)
        g = point.final_norm.pull(g, ReadoutRows(range(len(g)), True, g.device))
    return g, constant


def attention_logits(step: AttentionStep, read: Float[Tensor, "T D"], targets: range) -> Float[Tensor, "targets T"]:
    """Return Σ_h α^h[i, j] f^h(x_j) · g_i, the logit update by x_j at target i (Ferrando et al. 2023, section 3.2)."""
    heads = (read[targets.start : targets.stop] @ step.attention.output.weight.T).unflatten(
        -1, (step.attention.heads, -1)
    )
    return (step.weights(targets) * (heads.transpose(0, 1) @ step.values.permute(1, 2, 0))).sum(0)


def mlp_logits(step: AttentionStep, stages: Sequence[StageReadout]) -> Float[Tensor, " T"]:
    """Return the parts of the outputs of a block's MLPs in the logit, one number for each target."""
    x, logit = step.inputs, step.inputs.new_zeros(len(step.inputs))
    for number, read in enumerate(stages):
        outputs = [mlp.branch.carry(x, with_bias=True) for mlp in read.mlps]
        logit += sum((y * mlp.branch_output).sum(-1) for y, mlp in zip(outputs, read.mlps, strict=True))
        x = sum(outputs, start=step.total if number == 0 else x)
        x = x if read.stage.norm is None else read.stage.norm.carry(x, with_bias=True)
    return logit


def alti_logit_of(
    point: OperatingPoint, direction: Float[Tensor, "T E"], memory: int
) -> tuple[Float[Tensor, "T T"], dict[str, Float[Tensor, " T"]]]:
    """Return Σ_l Δlogit^l M^(l−1), with M^l = C^l · … · C^1, and the parts outside of it (Ferrando et al. 2023, 3.3).

    All scores and parts of a target add up to the product of `direction` with its final hidden state.
    """
    g, constant = read_at_the_end(point, direction)
    every, steps = stage_readouts(point, g), attention_steps(point)
    contributions = blockwise(steps, memory, 6 * g.shape[-1], alti_rows)
    reads = [stages[0].attentions[0].operator_output for stages in every]
    logits = blockwise(
        steps, memory, 6 * steps[0].attention.heads, lambda step, at: attention_logits(step, reads[step.layer], at)
    )
    positions = range(len(point))
    mixing = torch.eye(len(point), dtype=g.dtype, device=g.device)
    scores, mlp = torch.zeros_like(mixing), torch.zeros_like(constant)
    for step, stages in zip(steps, every, strict=True):
        scores += logits(step.layer, positions) @ mixing
        mlp += mlp_logits(step, stages)
        constant = constant + sum(stage.constant() for stage in stages)
        if step is not steps[-1]:
            mixing = normalise_rows(contributions(step.layer, positions)) @ mixing
    embedding = (point.embedding * every[0][0].attentions[0].branch_output).sum(-1)
    return scores, {"<embedding>": embedding, "<mlp>": mlp, "<bias>": constant}


def logit_direction(
    text: Text, function: str | None, unembedding: Unembedding
) -> tuple[Float[Tensor, "T E"], Float[Tensor, " T"]]:
    """Return for each target the row of the unembedding (or difference of two) that a logit function is, and its bias.

    Both are zero for the last target, whose next token is not known. ValueError for soft-capped logits.
    """
    unembedding.require_linear("alti_logit")
    bias = unembedding.weight.new_zeros(len(unembedding.weight)) if unembedding.bias is None else unembedding.bias
    direction, constant = unembedding.weight[text.ids[1:]], bias[text.ids[1:]]
    if function != "logit":
        assert text.foils is not None
        direction, constant = direction - unembedding.weight[text.foils], constant - bias[text.foils]
    scale = 1 / math.log(2) if function == "contrast_log2_prob" else 1.0
    return torch.nn.functional.pad(direction * scale, (0, 0, 0, 1)), torch.nn.functional.pad(constant * scale, (0, 1))


@torch.no_grad()
def alti_logit(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield ALTI-Logit: what the attention of all layers adds to a logit by way of each source (Ferrando et al. 2023).

    With the rows `<embedding>`, `<mlp>`, `<bias>` and `<remainder>` the scores of a target add up to its logit, or its
    difference of two logits.
    """
    for text, point in recorded(model, texts, request):
        unembedding = model.unembedding()
        direction, head_bias = logit_direction(text, request.function, unembedding)
        scores, extra = alti_logit_of(point, direction, request.memory)
        extra["<bias>"] = extra["<bias>"] + head_bias
        log2_prob = next_log2_prob(point.hidden[:-1], text.ids[1:], unembedding)
        parts = {name: part[:-1] for name, part in extra.items()}
        yield [Scores("alti_logit", text.targets, len(point), log2_prob, scores[:-1], parts)]
