"""The options by which edges are scored: the behaviour, its ablation, the gradients; they are checked without torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from decomp.locate.quadrature import nodes_of
from decomp.measures.quadrature import Nodes

if TYPE_CHECKING:
    from decomp.locate.edges.prompts import PromptPair

T = TypeVar("T")

GRAD_FUNCTION_NAMES = ("logit", "prob", "logprob", "logprob_nats", "logit_exp")
"""The names of the values of tokens that losses are computed from, in `decomp.locate.edges.behaviour`."""
LOSSES = {
    "avg_diff": "L = -(mean {0} of answers - mean {0} of wrong answers)",
    "avg_val": "L = -(mean {0} of answers)",
    "mse": "L = mean over the vocabulary of ({0} - 1 shared by the answers)^2",
    "kl": "L = KL(clean prediction || prediction), bits",
}
"""The losses in words, for outputs of commands; `kl` compares whole predictions instead of answers."""


def find(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Return the entry of a name. ValueError, which names the `kind` and the known names, for an unknown one."""
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")
    return known[name]


Ablation = Literal["resample", "zero", "mean", "token_mean", "batch_mean", "batch_token_mean"]
"""The output that an ablated source has instead of its own.

That on the other prompt of the pair; zero; its mean over all prompts, at each position (`mean`) or over positions, too
(`token_mean`); or such means over the prompts of a given batch.
"""
ABLATIONS: tuple[str, ...] = get_args(Ablation)
MEANS = ("mean", "token_mean", "batch_mean", "batch_token_mean")
OVER_TOKENS = ("token_mean", "batch_token_mean")
PER_BATCH = ("batch_mean", "batch_token_mean")
Side = Literal["clean", "corrupt", "both"]
SIDES: tuple[str, ...] = get_args(Side)


@dataclass(frozen=True)
class Behaviour:
    """The behaviour that edges are scored for, and the ablation of their sources."""

    grad_function: str = "logit"
    """The value of each token that the loss is computed from, a name in `GRAD_FUNCTIONS`."""
    answer_function: str = "avg_diff"
    """The loss, a name in `ANSWER_FUNCTIONS`, or `kl`."""
    ablation: Ablation = "resample"
    """The output that an ablated source has instead of its own."""
    side: Side = "corrupt"
    """The side of the pairs that ablated outputs are computed on; `both` for means over clean and corrupt prompts."""
    memory: int = 2**30
    """The bytes of memory for all that is held beside the model."""

    @property
    def need_of_batches(self) -> str | None:
        """Return what every prompt needs a given batch for, in words; None where prompts need none."""
        return f"which {self.ablation} needs" if self.ablation in PER_BATCH else None

    def check(self) -> None:
        """Raise ValueError for unknown names of functions and ablations, and for those that don't go together."""
        find("grad function", self.grad_function, dict.fromkeys(GRAD_FUNCTION_NAMES))
        find("answer function", self.answer_function, LOSSES)
        find("ablation", self.ablation, dict.fromkeys(ABLATIONS))
        find("side", self.side, dict.fromkeys(SIDES))
        if (self.ablation, self.side) == ("resample", "clean"):
            raise ValueError("resampling the clean prompts' own outputs changes nothing: resample from corrupt")
        if self.side == "both" and self.ablation not in MEANS:
            raise ValueError(f"only means are over both prompts of a pair, {self.ablation} is not: use corrupt")
        if self.answer_function == "kl" and self.grad_function != "logit":
            raise ValueError(f"kl looks at the whole prediction, not at {self.grad_function}: leave it out")


Method = Literal["mask_gradient", "eap_ig", "eap_ig_activations", "both_ends"]
METHODS: tuple[str, ...] = get_args(Method)
QUADRATURE = {"mask_gradient": "riemann", "eap_ig": "right", "eap_ig_activations": "right"}
"""The default quadrature of each method: auto-circuit's mask values, or k/n for k = 1 … n (Hanna et al. 2024)."""
OverPrompts = Literal["mean", "sum", "batch_means"]
OVER_PROMPTS: tuple[str, ...] = get_args(OverPrompts)


@dataclass(frozen=True)
class EdgeRequest(Behaviour):
    """The options by which edges are scored: the behaviour, and the method that takes its gradients.

    The method `mask_gradient` takes gradients at one `mask_value`, or at the nodes of a `quadrature` of `samples`
    between 0 and 1 (`riemann`: `samples` + 1 evenly spaced values); `eap_ig` at embeddings on the way from the ablated
    to the clean one; `eap_ig_activations` at outputs of nodes on that way, those of one kind in one layer at a time;
    `both_ends` in the passes over the clean and the corrupt prompts.
    """

    method: Method = "mask_gradient"
    """The method: `mask_gradient`, `eap_ig`, `eap_ig_activations` or `both_ends`."""
    mask_value: float | None = None
    """The single mask value at which `mask_gradient` takes gradients; None for the nodes of a quadrature."""
    samples: int | None = None
    """The number of nodes of the quadrature; None for the method's default."""
    quadrature: str | None = None
    """The name of the rule for the nodes; None for the method's own, in `QUADRATURE`."""
    over_prompts: OverPrompts = "mean"
    """The way to combine prompts: their mean, their sum, or the sum over given batches of the means in them."""
    over_samples: Literal["mean", "sum"] = "mean"
    """The way to combine samples: their mean, or their sum."""

    @property
    def need_of_batches(self) -> str | None:
        """Return what every prompt needs a given batch for, in words; None where prompts need none."""
        added_up = "whose means are added up" if self.over_prompts == "batch_means" else None
        return super().need_of_batches or added_up

    def check(self) -> None:
        """Raise ValueError for unknown names, and for options that exclude each other."""
        find("method", self.method, dict.fromkeys(METHODS))
        find("reduction over prompts", self.over_prompts, dict.fromkeys(OVER_PROMPTS))
        find("reduction over samples", self.over_samples, {"mean": 0, "sum": 0})
        self.check_nodes()
        super().check()

    def check_nodes(self) -> None:
        """Raise ValueError for options by which the points of gradients are contradictory or make no sense."""
        if self.method == "both_ends":
            if (self.mask_value, self.samples, self.quadrature) != (None, None, None):
                raise ValueError("both_ends takes its gradients at the clean and corrupt prompts: give no nodes for it")
            return
        if (self.mask_value is None) == (self.samples is None):
            raise ValueError("give a mask value or a number of integrated gradient samples, exactly one of the two")
        if self.mask_value is not None and not 0 <= self.mask_value <= 1:
            raise ValueError(f"the mask value must be from 0 (as it is) to 1 (ablated), not {self.mask_value}")
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"the number of integrated gradient samples must be at least 1, not {self.samples}")
        if self.method != "mask_gradient" and self.samples is None:
            what = "inputs" if self.method == "eap_ig" else "outputs"
            raise ValueError(
                f"{self.method} interpolates {what}, not masks: give integrated gradient samples, no mask value"
            )
        if self.quadrature is not None and self.samples is None:
            raise ValueError("a quadrature is of integrated gradient samples: give their number, no mask value")
        self.check_slope()

    def check_slope(self) -> None:
        """Raise ValueError for the divergence from the clean prediction with gradients there alone, which are zero."""
        clean = 0.0 if self.method == "mask_gradient" else 1.0
        if self.answer_function == "kl" and all(node == clean for node, _ in self.nodes()):
            raise ValueError(
                "the divergence from the clean prediction is flat there, every score would be 0: take gradients "
                "elsewhere too, at samples of mask_gradient, more samples of eap_ig, or both_ends"
            )

    def nodes(self) -> Nodes:
        """Return the nodes at which gradients are taken, and weights: mask values, or shares of the way to clean."""
        if self.samples is None:
            assert self.mask_value is not None
            return [(self.mask_value, 1.0)]
        nodes = nodes_of(self.quadrature or QUADRATURE[self.method], self.samples)
        return [(node, 1.0 if self.over_samples == "sum" else weight) for node, weight in nodes]

    def weights(self, prompts: "Sequence[PromptPair]") -> dict[str | None, float]:
        """Return the weight of a prompt in scores and losses, by its group (see `weighed_with`)."""
        sizes = Counter(map(self.weighed_with, prompts))
        return {name: 1.0 if self.over_prompts == "sum" else 1 / size for name, size in sizes.items()}

    def weighed_with(self, prompt: "PromptPair") -> str | None:
        """Return the batch whose mean a prompt is part of; None for all prompts together."""
        return prompt.batch if self.over_prompts == "batch_means" else None
