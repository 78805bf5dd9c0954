"""What every measure gives back, and the rule that all of it passes."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """The scores of one measure on one window, each of whose `targets` predicts the next token."""

    measure: str
    targets: range
    decomposition_length: int
    log2_prob: Float[Tensor, "T-1"]
    """The log2 probability of the next token, in bits."""
    scores: Float[Tensor, "T-1 S"]
    """(target, source), in the measure's unit."""
    extra: dict[str, Float[Tensor, "T-1"]]
    """What is no token (`<bias>`, `<remainder>`)."""
    begun: Sequence[int] | None = None
    """How many sources have begun by each target, where these are groups; as many as targets where they are alike."""

    carried: Sequence[int] | None = None
    """The sources that have scores, where these are the strongest alone."""

    def sources(self, target: int) -> range:
        """Return the sources that are kept for a target, oldest first. ValueError where only some have scores."""
        if self.carried is not None:
            raise ValueError("the scores of the strongest sources alone give no ranking of all: leave out strongest")
        begun = target + 1 if self.begun is None else self.begun[target]
        return range(max(0, begun - self.decomposition_length), begun)


def finite(scores: Scores, place: str = "") -> Scores:
    """Return the scores as they are, none of them infinite or no number.

    ValueError otherwise, which names the measure, the source and target, and the `place` (article and window).
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
