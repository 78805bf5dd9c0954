"""The scores that every measure returns, and the check that they are finite."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """The scores of one measure for one text: of every source, for every predicted token."""

    measure: str
    """The name of the measure, as tables show it."""
    targets: range
    """The positions whose next token's prediction is scored; others are not scored."""
    decomposition_length: int
    """The number of most recent sources that are kept for each target."""
    log2_prob: Float[Tensor, "T-1"]
    """The log2 probability of the next token, in bits."""
    scores: Float[Tensor, "T-1 S"]
    """The score of each source (column) for each target (row), in the measure's unit."""
    extra: dict[str, Float[Tensor, "T-1"]]
    """The scores for each target of what is no token, by name: `<bias>`, `<remainder>` …"""
    begun: Sequence[int] | None = None
    """The number of sources that have begun by each target, where sources are groups of tokens; None for tokens."""

    carried: Sequence[int] | None = None
    """The numbers of the sources that have scores, where only the strongest have; None for all."""

    def sources(self, target: int) -> range:
        """Return the sources that are kept for a target, oldest first. ValueError for scores of the strongest alone."""
        if self.carried is not None:
            raise ValueError("the scores of the strongest sources alone give no ranking of all: leave out strongest")
        begun = target + 1 if self.begun is None else self.begun[target]
        return range(max(0, begun - self.decomposition_length), begun)


def finite(scores: Scores, place: str = "") -> Scores:
    """Return the scores unchanged, after a check that all of them are finite.

    ValueError for a score that is NaN or infinite, with the measure, the target and source, and the text's `place`.
    """
    targets = slice(scores.targets.start, scores.targets.stop)
    for name, every in {"the log2 probability": scores.log2_prob, "": scores.scores, **scores.extra}.items():
        values = every[targets]
        wrong = (~values.isfinite()).nonzero()
        if len(wrong):
            target, *source = wrong[0].tolist()
            what = f"source {source[0]}" if source else name
            raise ValueError(
                f"{scores.measure}: {what} of target {target + targets.start}{place and f' in {place}'} is "
                f"{values[tuple(wrong[0])].item()}: use a dtype with more range (float32, float64), other options, "
                "or check the model's weights"
            )
    return scores
