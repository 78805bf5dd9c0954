"""Gradients of every target with respect to the embeddings of its sources, at one point or along a path.

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
"""Residuals of more than this share of F(x) − F(baseline) are warned of."""
NORMS = {"l1": 1, "l2": 2}

Scored = tuple[Float[Tensor, "T-1 T"], dict[str, Float[Tensor, "T-1"]]]
"""(target, source), and what is no token."""
Path = Callable[[], Iterator[tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]]]]
"""Points at which gradients are taken, each with what they are multiplied by."""


def gradient_norm(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield ‖∂F/∂x_k‖ of every target and source (Simonyan et al. 2014), per unit of embedding."""

    def score(x: Embedded) -> Scored:
        return x.along(lambda: iter([(x.inputs, torch.ones_like(x.inputs))]), "norm"), {}

    return score_texts("gradient_norm", score, model, texts, request)


def input_x_gradient(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield x_k · ∂F/∂x_k of every target and source (Denil et al. 2014)."""

    def score(x: Embedded) -> Scored:
        return x.along(lambda: iter([(x.inputs, x.inputs)]), request.gradients.reduce), {}

    return score_texts("input_x_gradient", score, model, texts, request)


def integrated_gradients(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield (x_k − b_k) · ∫ ∂F/∂x_k along the straight line from the baseline b (Sundararajan et al. 2017).

    What the finite sum misses of F(x) − F(b) is `<residual>`.
    """
    nodes = quadrature(request.gradients.quadrature, request.gradients.steps)

    def score(x: Embedded) -> Scored:
        baseline = x.baseline()
        line = x.inputs - baseline
        path = lambda: ((baseline + node * line, weight * line) for node, weight in nodes)  # noqa: E731
        return x.shares("integrated_gradients", path, baseline)

    return score_texts("integrated_gradients", score, model, texts, request)


def discretized_ig(model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
    """Yield Σ ∂F/∂x_k · step along a monotone path from the baseline through words' embeddings (Sanyal & Ren 2021).

    ValueError with `positions`: the path goes through words.
    """
    options = request.gradients
    if options.positions:
        raise ValueError("discretized_ig goes through embeddings of words, which have no position: leave positions out")

    def score(x: Embedded) -> Scored:
        neighbors, baseline = model.until_weights_change(Neighbors.of_model), x.baseline()[0]
        words = anchors(x.text.ids, baseline, neighbors, options, request.memory // 2)
        points = word_path(x.text.ids, baseline, words, neighbors, options.steps)
        path = lambda: ((point, later - point) for point, later in pairwise(points))  # noqa: E731
        return x.shares("discretized_ig", path, points[0])

    return score_texts("discretized_ig", score, model, texts, request)


@torch.no_grad()
def score_texts(
    measure: str, score: "Callable[[Embedded], Scored]", model: Model, texts: Sequence[Text], request: Request
) -> Iterator[list[Scores]]:
    """Yield the scores of each text that `score` makes of its embeddings, under the measure's name."""
    for text in texts:
        embedded = Embedded.of(model, text, request)
        scores, extra = score(embedded)
        yield [Scores(measure, text.targets, len(text.ids), embedded.readout(embedded.hidden).log2_prob, scores, extra)]


@dataclass(frozen=True, eq=False)
class Embedded:
    """One text with the embeddings that its gradients are taken with respect to."""

    model: Model
    text: Text
    request: Request
    hidden: Float[Tensor, "T E"]
    state: Float[Tensor, "T D"]
    """What the blocks are given."""
    inputs: Float[Tensor, "T E"]
    """Token embeddings, or with `positions` the state."""
    project: Affine | None
    """The map from the width of `inputs` to that of the state, where they differ."""

    @classmethod
    def of(cls, model: Model, text: Text, request: Request) -> "Embedded":
        """Return a text with what its gradients are taken with respect to, by the request."""
        point = model.record(text.ids)
        embeddings, project_in = model.token_embeddings()
        if request.gradients.positions:
            return cls(model, text, request, point.hidden, point.embedding, point.embedding, None)
        return cls(model, text, request, point.hidden, point.embedding, embeddings[text.ids], project_in)

    def state_at(self, inputs: Float[Tensor, "T E"]) -> Float[Tensor, "T D"]:
        """Return what the blocks are given at other inputs."""
        step = inputs - self.inputs
        return self.state + (step if self.project is None else self.project(step, with_bias=False))

    def baseline(self) -> Float[Tensor, "T E"]:
        """Return the request's baseline at every position; it has no position itself.

        ValueError for a baseline that is neither `auto`, `zero` or `mean`, nor a token id.
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
        """Return the attributed function of each target, as seen from final hidden states."""
        return Readout.of(self.text, hidden, self.request.function, self.model.unembedding())

    def values(self, hidden: Float[Tensor, "T E"]) -> Float[Tensor, "T-1"]:
        """Return the attributed function of each target; zero where none is asked for."""
        values, targets = hidden.new_zeros(len(hidden) - 1), self.text.targets
        values[targets.start : targets.stop], _ = self.readout(hidden).gradients(targets, self.request.memory // 2)
        return values

    def shares(self, measure: str, path: Path, baseline: Float[Tensor, "T E"]) -> Scored:
        """Return scores along a path from the baseline, which sum to F(x) − F(baseline) but for the residual."""
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
        """Yield gradients of the attributed function at some inputs, group by group of targets."""
        point = self.model.record(self.text.ids, embedding=self.state_at(inputs))
        backward = Backward(self.model.network(), point, "differentiate", memory)
        memory -= backward.bytes_held()
        _, readouts = self.readout(point.hidden).gradients(targets, max(memory, 0) // 2)
        for group in backward.groups(targets, memory - bytes_of(readouts)):
            g = backward(readouts[group.start - targets.start : group.stop - targets.start], group)
            yield group, g if self.project is None else g @ self.project.weight.T

    def along(self, path: Path, reduce: str) -> Float[Tensor, "T-1 T"]:
        """Return Σ over the path of gradient ⊙ step, summed over hidden, or its norm."""
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
        """Yield targets whose path is followed together, with the memory left: norms need gradients to its end."""
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
