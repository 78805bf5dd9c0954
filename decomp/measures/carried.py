"""The scores of one text, filled in while the contributions of its sources are carried forward."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decomp.core.decomposition import remainder_of
from decomp.core.engine import Chunk
from decomp.core.operating_point import OperatingPoint
from decomp.measures.readout import Readout
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores
from decomp.measures.units import kept_count, oldest_kept

Share = Callable[[Float[Tensor, "pairs E"], Int[Tensor, " pairs"]], Float[Tensor, " pairs"]]
"""A function of vectors and the targets of each, which returns what each vector is to its target's prediction."""


@dataclass(frozen=True, eq=False)
class CarriedScores:
    """The scores of one text, to which its contributions are added chunk by chunk.

    With `additive`, a score is the contribution's share in a linear function; otherwise it is the function's change
    when the contribution is taken away.
    """

    text: Text
    point: OperatingPoint
    readout: Readout
    additive: bool
    oldest: Int[Tensor, " T"]
    """The oldest source that counts for each target."""
    scores: Float[Tensor, "T S"]
    """The scores so far; the last target, which predicts nothing, has a row, too, since it has sources."""
    kept: Float[Tensor, "T E"] | None
    """The sum over the sources that count, so far; None unless the bias and older sources are scored."""

    @classmethod
    def empty(
        cls, text: Text, point: OperatingPoint, readout: Readout, request: Request, additive: bool, with_rest: bool
    ) -> "CarriedScores":
        """Return scores of zero; `with_rest` says whether the bias and older sources are to be scored, too."""
        hidden = point.hidden
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        scores = hidden.new_zeros(len(point), text.partition.count, dtype=dtype)
        oldest = oldest_kept(text, request).to(hidden.device)
        return cls(text, point, readout, additive, oldest, scores, torch.zeros_like(hidden) if with_rest else None)

    @property
    def share(self) -> Share:
        """Return the function that scores vectors: their products with the readout, or the changes without them."""
        return self.readout.product if self.additive else self.readout.change

    def add(self, chunk: Chunk) -> None:
        """Score the contributions of a chunk to the targets that are scored, and sum them over sources."""
        targets, sources, rows = recent_pairs(chunk, self.oldest)
        if self.kept is not None:
            self.kept.index_add_(0, targets, rows)
        # Targets rise along the rows.
        bounds = torch.tensor([self.text.targets.start, self.text.targets.stop], device=targets.device)
        scored = slice(*torch.searchsorted(targets, bounds).tolist())
        if scored.start < scored.stop:
            i, k = targets[scored], sources[scored]
            self.scores[i, k] = self.share(rows[scored], i)

    def rest(self, count: int) -> dict[str, Float[Tensor, "T-1"]]:
        """Return the scores of what is no kept source, by name: biases, and the sources older than `count`."""
        if self.kept is None:
            return {}
        every = torch.arange(len(self.point) - 1, device=self.kept.device)
        vectors = rest_vectors(self.point, self.kept, int((self.oldest == 0).sum()))
        shares = {name: self.share(vector[:-1], every) for name, vector in vectors.items()}
        if self.additive and self.readout.head_bias is not None:
            shares["<head_bias>"] = self.readout.head_bias
        if self.additive and count >= self.text.partition.count:
            shares.pop("<remainder>")
        return shares

    def result(self, measure: str, request: Request) -> Scores:
        """Return the scores of the text, after all of its contributions have been added."""
        count = kept_count(self.text, request)
        return Scores(measure, self.text.targets, count, self.readout.log2_prob, self.scores[:-1], self.rest(count))


def recent_pairs(
    chunk: Chunk, oldest: Int[Tensor, " T"]
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Float[Tensor, "pairs E"]]:
    """Return target, source and contribution of those pairs of a chunk whose source counts for its target."""
    targets, sources = chunk.pairs()
    counts = sources >= oldest[targets]
    if counts.all():
        return targets, sources, chunk.rows
    return targets[counts], sources[counts], chunk.rows[counts]


def rest_vectors(point: OperatingPoint, kept: Float[Tensor, "T E"], covered: int) -> dict[str, Float[Tensor, "T E"]]:
    """Return the bias and the sum over older sources, by name; the latter is zero for the first `covered` targets."""
    *_, bias = point.carry(torch.zeros_like(point.embedding), with_bias=True)
    *_, total = point.carry(point.embedding, with_bias=False)
    return {"<bias>": bias, "<remainder>": remainder_of(total, kept, covered)}
