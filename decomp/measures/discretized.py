"""Paths for discretised integrated gradients: from a baseline to words, by way of other words (Sanyal & Ren 2021)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.model import Model
from decomp.measures.request import GradientOptions

STRATEGIES = ("greedy", "maxcount")


class Neighbors:
    """A finder of the nearest words to a word, by Euclidean distance of embeddings; it searches for each word once."""

    def __init__(self, embeddings: Float[Tensor, "V E"]) -> None:
        self.embeddings = embeddings
        self.known: dict[tuple[int, int], Int[Tensor, " K"]] = {}

    @classmethod
    def of_model(cls, model: Model) -> "Neighbors":
        """Return a finder among a model's token embeddings."""
        return cls(model.token_embeddings()[0])

    def __call__(self, words: Int[Tensor, " N"], count: int) -> Int[Tensor, "N K"]:
        """Return the `count` nearest other words of each word, or all there are."""
        count = min(count, len(self.embeddings) - 1)
        dtype = torch.promote_types(self.embeddings.dtype, torch.float32)
        embeddings = self.embeddings.to(dtype)
        for word in sorted({word for word in words.tolist() if (word, count) not in self.known}):
            # The faster way, by matrix products, is not exact.
            distance = torch.cdist(
                embeddings[word : word + 1], embeddings, compute_mode="donot_use_mm_for_euclid_dist"
            )[0]
            distance[word] = torch.inf
            self.known[word, count] = distance.topk(count, largest=False).indices
        return torch.stack([self.known[word, count] for word in words.tolist()])


def between(x: Float[Tensor, "*N E"], start: Float[Tensor, "*N E"], end: Float[Tensor, "*N E"]) -> Bool[Tensor, "*N E"]:
    """Return the dimensions in which x lies between start and end, so that a path through it does not turn back."""
    return (x >= torch.minimum(start, end)) & (x <= torch.maximum(start, end))


def monotonise(
    x: Float[Tensor, "*N E"], start: Float[Tensor, "*N E"], end: Float[Tensor, "*N E"], steps: int
) -> Float[Tensor, "*N E"]:
    """Return x, with one step of the straight line from start to end in the dimensions in which it is not between."""
    return torch.where(between(x, start, end), x, start - (start - end) / steps)


def next_words(
    words: Int[Tensor, " N"],
    candidates: Int[Tensor, "N K"],
    allowed: Bool[Tensor, "N K"],
    embeddings: Float[Tensor, "V E"],
    baseline: Float[Tensor, " E"],
    strategy: str,
    steps: int,
) -> Int[Tensor, " N"]:
    """Return the best candidate for the next word of each path; −1 where no candidate is allowed.

    The strategy `greedy` takes the candidate that making it monotone moves least; `maxcount` the one with the largest
    number of monotone dimensions.
    """
    x, start = embeddings[candidates], embeddings[words][:, None]
    if strategy == "greedy":
        cost = torch.linalg.vector_norm(x - monotonise(x, start, baseline, steps), dim=-1)
    else:
        cost = (~between(x, start, baseline)).sum(-1).to(x.dtype)
    cost = cost.masked_fill(~allowed, torch.inf)
    best = candidates.gather(1, cost.argmin(1, keepdim=True))[:, 0]
    return torch.where(allowed.any(1), best, -1)


def anchors(
    ids: Int[Tensor, " T"],
    baseline: Float[Tensor, " E"],
    neighbors: Neighbors,
    options: GradientOptions,
    memory: int,
) -> Int[Tensor, "steps T"]:
    """Return the words that each path goes through, none twice and none the baseline; −1 after the last possible one.

    ValueError for an unknown strategy, and for fewer points than the two ends of a path.
    """
    if options.strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {options.strategy!r}: choose one of {', '.join(STRATEGIES)}")
    embeddings, strategy, steps = neighbors.embeddings, options.strategy, options.steps
    no_anchor = (embeddings == baseline).all(-1)
    chosen = [ids]
    # Candidates, their monotonised selves, and what compares them.
    together = max(1, memory // (6 * options.neighbors * embeddings.shape[1] * embeddings.element_size()))
    for _ in range(anchor_count(options)):
        seen, words = torch.stack(chosen), chosen[-1].clamp(min=0)
        candidates = neighbors(words, options.neighbors)
        allowed = (chosen[-1] >= 0)[:, None] & ~no_anchor[candidates]
        allowed &= ~(candidates[None] == seen[:, :, None]).any(0)
        parts = zip(words.split(together), candidates.split(together), allowed.split(together), strict=True)
        chosen.append(torch.cat([next_words(w, c, a, embeddings, baseline, strategy, steps) for w, c, a in parts]))
    return torch.stack(chosen)[1:]


def anchor_count(options: GradientOptions) -> int:
    """Return the number of words between the two ends of a path. ValueError for fewer than two points."""
    if options.dig_steps == "anchors":
        return options.steps
    if options.steps < 2:
        raise ValueError(f"a path has its two ends among its points: use 2 steps or more, not {options.steps}")
    return options.steps - 2


def word_path(
    ids: Int[Tensor, " T"],
    baseline: Float[Tensor, " E"],
    words: Int[Tensor, "anchors T"],
    neighbors: Neighbors,
    steps: int,
) -> list[Float[Tensor, "T E"]]:
    """Return the points of the paths from the baseline to the words, monotone in every dimension.

    In a dimension in which an anchor would turn the path back, the path goes 1 / `steps` of the way to the baseline.
    """
    points = [neighbors.embeddings[ids]]
    for anchor in words:
        x = torch.where((anchor < 0)[:, None], baseline, neighbors.embeddings[anchor.clamp(min=0)])
        points.append(monotonise(x, points[-1], baseline, steps))
    return [baseline.expand_as(points[0]), *reversed(points)]
