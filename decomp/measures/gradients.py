"""Gradient measures: by gradients of every prediction with respect to the embeddings, at one point or on a path.

All targets share the forward pass of a point; the way back is truncated at each target (see `decomp.core.backward`).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.backward import Backward
from decomp.core.model import Model
from decomp.core.network import Affine
from decomp.core.workspace import bytes_of
from decomp.io.amounts import format_bytes
from decomp.measures.discretized import Neighbors, anchors, word_path
from decomp.measures.quadrature import quadrature
from decomp.measures.readout import Readout
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores

logger = logging.getLogger(__name__)

RESIDUAL_WARNED = 0.05
"""The share of F(x) − F(baseline) beyond which the residual of integrated gradients is warned of."""
NORMS = {"l1": 1, "l2": 2}

Scored = tuple[Float[Tensor, "T-1 T"], dict[str, Float[Tensor, "T-1"]]]
"""The scores by target and source, and by name those of what is no token."""
Path = Callable[[], Iterator[tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]]]]
"""The points at which gradients are taken, each with the step that they are multiplied by."""


def gradient_norm(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield the norm ‖∂F/∂x_k‖ for every target and source k (Simonyan et al. 2014), per unit of embedding."""

    def score(x: EmbeddedText) -> Scored:
        return x.along(lambda: iter([(x.inputs, torch.ones_like(x.inputs))]), "norm"), {}

    return score_texts("gradient_norm", score, model, texts, request)


def input_x_gradient(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield the product x_k · ∂F/∂x_k for every target and source k (Denil et al. 2014)."""

    def score(x: EmbeddedText) -> Scored:
        return x.along(lambda: iter([(x.inputs, x.inputs)]), request.gradients.reduce), {}

    return score_texts("input_x_gradient", score, model, texts, request)


def integrated_gradients(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield (x_k − b_k) · ∫ ∂F/∂x_k along the straight line from the baseline b (Sundararajan et al. 2017).

    The row `<residual>` is F(x) − F(b) minus the sum of all scores, the error of the finite number of steps.
    """
    nodes = quadrature(request.gradients.quadrature, request.gradients.steps)

    def score(x: EmbeddedText) -> Scored:
        baseline = x.baseline()
        line = x.inputs - baseline
        path = lambda: ((baseline + node * line, weight * line) for node, weight in nodes)  # noqa: E731
        return x.shares("integrated_gradients", path, baseline)

    return score_texts("integrated_gradients", score, model, texts, request)


def discretized_ig(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield Σ ∂F/∂x_k · step along a monotone path from the baseline through words' embeddings (Sanyal & Ren 2021).

    ValueError where `positions` are asked for, since the path goes through embeddings of words alone.
    """
    options = request.gradients
    if options.positions:
        raise ValueError("discretized_ig goes through embeddings of words, which have no position: leave positions out")

    def score(x: EmbeddedText) -> Scored:
        neighbors, baseline = model.until_weights_change(Neighbors.of_model), x.baseline()[0]
        words = anchors(x.text.ids, baseline, neighbors, options, request.memory // 2)
        points = word_path(x.text.ids, baseline, words, neighbors, options.steps)
        path = lambda: ((point, later - point) for point, later in pairwise(points))  # noqa: E731
        return x.shares("discretized_ig", path, points[0])

    return score_texts("discretized_ig", score, model, texts, request)


@torch.no_grad()
def score_texts(
    measure: str, score: "Callable[[EmbeddedText], Scored]", model: Model, texts: Sequence[Text], request: Request
) -> Iterator[list[Scores]]:
    """Yield the scores of each text, computed by `score` from its embeddings, under the measure's name."""
    for text in texts:
        embedded = EmbeddedText.of(model, text, request)
        scores, extra = score(embedded)
        yield [Scores(measure, text.targets, len(text.ids), embedded.readout(embedded.hidden).log2_prob, scores, extra)]


@dataclass(frozen=True, eq=False)
class EmbeddedText:
    """A text with the embeddings that gradients are taken with respect to."""

    model: Model
    text: Text
    request: Request
    hidden: Float[Tensor, "T E"]
    """The final hidden states of the text."""
    state: Float[Tensor, "T D"]
    """The input of the first block."""
    inputs: Float[Tensor, "T E"]
    """The embeddings that gradients are taken with respect to: of tokens, or with `positions` the whole `state`."""
    project: Affine | None
    """The map from the width of `inputs` to that of `state`; None where the widths are equal."""

    @classmethod
    def of(cls, model: Model, text: Text, request: Request) -> "EmbeddedText":
        """Return a text with the embeddings that the request's gradients are taken with respect to."""
        point = model.record(text.ids)
        embeddings, project_in = model.token_embeddings()
        if request.gradients.positions:
            return cls(model, text, request, point.hidden, point.embedding, point.embedding, None)
        return cls(model, text, request, point.hidden, point.embedding, embeddings[text.ids], project_in)

    def state_at(self, inputs: Float[Tensor, "T E"]) -> Float[Tensor, "T D"]:
        """Return the input of the first block for other embeddings in the place of `inputs`."""
        step = inputs - self.inputs
        return self.state + (step if self.project is None else self.project(step, with_bias=False))

    def baseline(self) -> Float[Tensor, "T E"]:
        """Return the request's baseline, the same embedding at every position.

        ValueError for a baseline that is not `auto`, `zero`, `mean` or a token id.
        """
        options = self.request.gradients
        chosen = self.model.default_baseline(options.positions) if options.baseline == "auto" else options.baseline
        embeddings, project_in = self.model.token_embeddings()
        if chosen == "zero":
            return torch.zeros_like(self.inputs)
        if chosen != "mean" and not (isinstance(chosen, int) and 0 <= chosen < len(embeddings)):
            raise ValueError(
                f"the baseline must be auto, zero, mean, or a token id below {len(embeddings)}, not {chosen!r}"
            )
        vector = embeddings[chosen] if isinstance(chosen, int) else embeddings.mean(0)
        if self.request.gradients.positions and project_in is not None:
            vector = project_in(vector, with_bias=False)
        return vector.expand_as(self.inputs)

    def readout(self, hidden: Float[Tensor, "T E"]) -> Readout:
        """Return the attributed function of each target, as a function of the final hidden states."""
        return Readout.of(self.text, hidden, self.request.function, self.model.unembedding())

    def values(self, hidden: Float[Tensor, "T E"]) -> Float[Tensor, "T-1"]:
        """Return the value of the attributed function for each target; zero for targets that are not scored."""
        values, targets = hidden.new_zeros(len(hidden) - 1), self.text.targets
        values[targets.start : targets.stop], _ = self.readout(hidden).gradients(targets, self.request.memory // 2)
        return values

    def shares(self, measure: str, path: Path, baseline: Float[Tensor, "T E"]) -> Scored:
        """Return scores along a path from the baseline; with the residual they add up to F(x) − F(baseline)."""
        reduce = self.request.gradients.reduce
        scores = self.along(path, reduce)
        if reduce == "norm":
            return scores, {}
        at_baseline = self.model.record(self.text.ids, embedding=self.state_at(baseline)).hidden
        change = self.values(self.hidden) - self.values(at_baseline)
        residual = change - scores.sum(1)
        if residual.abs().sum() > RESIDUAL_WARNED * change.abs().sum():
            logger.warning(
                "%s: the sources' shares miss %.0f %% of F(x) - F(baseline), see rows <residual>: use more steps",
                measure,
                100 * (residual.abs().sum() / change.abs().sum()).item(),
            )
        return scores, {"<residual>": residual}

    def gradients(
        self, inputs: Float[Tensor, "T E"], targets: range, memory: int
    ) -> Iterator[tuple[range, Float[Tensor, "targets sources E"]]]:
        """Yield gradients of the attributed function at the given embeddings, one group of targets after another."""
        point = self.model.record(self.text.ids, embedding=self.state_at(inputs))
        backward = Backward(self.model.network(), point, "differentiate", memory)
        memory -= backward.bytes_held()
        _, readouts = self.readout(point.hidden).gradients(targets, max(memory, 0) // 2)
        for group in backward.groups(targets, memory - bytes_of(readouts)):
            g = backward(readouts[group.start - targets.start : group.stop - targets.start], group)
            yield group, g if self.project is None else g @ self.project.weight.T

    def along(self, path: Path, reduce: str) -> Float[Tensor, "T-1 T"]:
        """Return Σ gradient ⊙ step over the path, reduced over the embedding's width by its sum or its norm."""
        length, width = self.inputs.shape
        dtype = torch.promote_types(self.inputs.dtype, torch.float32)
        scores = self.inputs.new_zeros(length - 1, length, dtype=dtype)
        for targets, memory in self.blocks(reduce):
            total = scores.new_zeros(len(targets), targets.stop, *([] if reduce == "sum" else [width]))
            for inputs, step in path():
                for group, g in self.gradients(inputs, targets, memory):
                    part = g.to(dtype) * step[: group.stop]
                    rows = slice(group.start - targets.start, group.stop - targets.start)
                    total[rows, : group.stop] += part.sum(-1) if reduce == "sum" else part
            norm = NORMS[self.request.gradients.norm]
            scores[targets.start : targets.stop, : targets.stop] = (
                total if reduce == "sum" else total.norm(norm, dim=-1)
            )
        return scores

    def blocks(self, reduce: str) -> Iterator[tuple[range, int]]:
        """Yield groups of targets that follow the path together, with the bytes of memory that are left for each.

        Norms need all gradients of a group until the end of the path, sums do not.
        """
        targets, memory = self.text.targets, self.request.memory
        if reduce == "sum":
            yield targets, memory
            return
        size = self.inputs.numel() * max(4, self.inputs.element_size())
        if size > memory:
            raise ValueError(
                f"the norm of a gradient needs {format_bytes(size)} a target, {format_bytes(memory)} are allowed: "
                "allow more memory or use a shorter context"
            )
        together = max(1, memory // 2 // size)
        for start in range(targets.start, targets.stop, together):
            block = range(start, min(start + together, targets.stop))
            yield block, memory - size * len(block)
