"""Descriptions of where an architecture keeps the weights of its norms, attention layers and MLPs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from decomp.core.network import MLP, Affine, Attention, Branch, Mixture, Norm, Stage


@dataclass(frozen=True)
class Projection:
    """A linear map whose output is part of a module's output: all columns, a slice, or columns by number."""

    module: nn.Module
    """The module whose output holds that of the map."""
    columns: "slice | Int[Tensor, ' outputs']" = field(default_factory=lambda: slice(None))
    """The columns of the module's output that are the map's, as a slice or as numbers."""

    def affine(self) -> Affine:
        """Return the map's weights and bias: views, or copies for columns by number."""
        joint = affine(self.module)
        return Affine(joint.weight[:, self.columns], None if joint.bias is None else joint.bias[self.columns])

    def of(self, output: Float[Tensor, "*rows joint"]) -> Float[Tensor, "*rows outputs"]:
        """Return this map's columns of the module's output."""
        return output[..., self.columns]


def interleaved(module: nn.Module, heads: int) -> tuple[Projection, Projection, Projection]:
    """Return the maps to queries, keys and values of one module whose output has the three of each head together."""
    columns = torch.arange(affine(module).weight.shape[1]).view(heads, 3, -1)
    query, key, value = (Projection(module, columns[:, part].flatten()) for part in range(3))
    return query, key, value


@dataclass(frozen=True)
class AttentionSite:
    """The places of the weights of one self-attention: the modules that hold its projections."""

    module: Any
    """The attention module."""
    query: Projection
    """The map to queries."""
    key: Projection
    """The map to keys."""
    value: Projection
    """The map to values."""
    output: nn.Module
    """The module of the output projection."""
    heads: int
    """The number of heads."""
    kv_heads: int
    """The number of heads that have keys and values of their own."""

    kind = "attention"

    @property
    def last(self) -> nn.Module:
        """Return the module whose output is that of the attention."""
        return self.output

    def operator(self) -> Attention:
        """Return the weights that contributions meet."""
        return Attention(self.value.affine(), affine(self.output), self.heads, self.kv_heads)

    def projections(self) -> tuple[Affine, Affine, Affine]:
        """Return the maps to queries, keys and values."""
        return self.query.affine(), self.key.affine(), self.value.affine()


@dataclass(frozen=True)
class MLPSite:
    """The places of the weights of one MLP: `down(φ(up(x)))`, or with a gate `down(φ(gate(x)) ⊙ up(x))`."""

    up: Projection
    """The map to the neurons; of a gated MLP, the factor that the gate multiplies."""
    down: nn.Module
    """The module of the output projection."""
    activation: Callable[[Tensor], Tensor]
    """The activation function φ."""
    gate: Projection | None = None
    """The map to the gate, which the activation function is applied to; None for a plain MLP."""

    kind = "mlp"

    def __call__(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the real output of the MLP for x, not linearised."""
        up = self.up.of(self.up.module(x))
        if self.gate is None:
            return self.down(self.activation(up))
        return self.down(self.activation(self.gate.of(self.gate.module(x))) * up)

    @property
    def entries(self) -> tuple[nn.Module, ...]:
        """Return the modules whose input is that of the MLP."""
        return tuple(dict.fromkeys(p.module for p in (self.up, self.gate) if p is not None))

    @property
    def last(self) -> nn.Module:
        """Return the module whose input is the neurons and whose output is that of the MLP."""
        return self.down

    def operator(self) -> MLP:
        """Return the weights that contributions meet."""
        inputs = (self.up,) if self.gate is None else (self.up, self.gate)
        return MLP(tuple(projection.affine() for projection in inputs), affine(self.down))


@dataclass(frozen=True)
class MixtureSite:
    """The places of the weights of a mixture of gated experts: for each expert one map to `gate` and `up`, and `down`.

    The router must return its logits, the weights of the chosen experts, and the numbers of these experts.
    """

    module: nn.Module
    """The module that holds both the router and the experts."""
    router: nn.Module
    """The module that chooses experts for each position, and their weights."""
    experts: Any
    """The module that holds the weights of all experts."""

    kind = "mlp"

    def __call__(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the real output of the mixture for x, with the experts that the router chooses for it."""
        output: Tensor = self.module(x.reshape(1, -1, x.shape[-1]))
        return output.view(x.shape)

    @property
    def entries(self) -> tuple[nn.Module, ...]:
        """Return the module whose input is that of the mixture."""
        return (self.module,)

    @property
    def last(self) -> nn.Module:
        """Return the module whose output is that of the mixture."""
        return self.module

    def operator(self) -> Mixture:
        """Return the weights that contributions pass through, of all experts, as views."""
        joint, down = (p.detach() for p in (self.experts.gate_up_proj, self.experts.down_proj))
        pairs = [(Affine(up.T), Affine(gate.T)) for gate, up in (own.chunk(2) for own in joint)]
        return Mixture(tuple(MLP(inputs, Affine(own.T)) for inputs, own in zip(pairs, down, strict=True)))


@dataclass(frozen=True)
class BranchSite:
    """The places of the weights of one branch `norm_out(body(norm_in(x)))`; either norm may be missing."""

    body: AttentionSite | MLPSite | MixtureSite
    """The attention, MLP or mixture."""
    norm_in: nn.Module | None = None
    """The norm before it; None where there is none."""
    norm_out: nn.Module | None = None
    """The norm after it, before the sum with the residual stream; None where there is none."""

    @property
    def last(self) -> nn.Module:
        """Return the module whose output is added to the residual stream."""
        return self.body.last if self.norm_out is None else self.norm_out

    def branch(self) -> Branch:
        """Return the weights that contributions meet."""
        return Branch(self.body.operator(), norm(self.norm_in), norm(self.norm_out))

    def run(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the real output of an MLP branch for the stream x. ValueError for attention."""
        if isinstance(self.body, AttentionSite):
            raise ValueError("attention can't be computed again one position at a time")
        return self.finish(self.body(x if self.norm_in is None else self.norm_in(x)))

    def finish(self, output: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the body's output after the norm that follows it, if any, with the σ of this output itself."""
        return output if self.norm_out is None else self.norm_out(output)


@dataclass(frozen=True)
class StageSite:
    """The places of the weights of one stage: branches that read one residual stream, and the norm after their sum."""

    branches: tuple[BranchSite, ...]
    """The branches, which all read the same residual stream."""
    norm: nn.Module | None = None
    """The norm after the residual sum; None where there is none."""

    @classmethod
    def of(
        cls, body: AttentionSite | MLPSite | MixtureSite, norm_in: nn.Module | None = None, **more: Any
    ) -> "StageSite":
        """Return a stage with one branch; `more` may give its `norm_out`, and the `norm` after the sum."""
        return cls((BranchSite(body, norm_in, more.get("norm_out")),), more.get("norm"))

    def stage(self) -> Stage:
        """Return the weights that contributions meet."""
        return Stage(tuple(branch.branch() for branch in self.branches), norm(self.norm))

    def finish(self, stream: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the stream after the norm that follows the sum, if any, with the σ of this stream itself."""
        return stream if self.norm is None else self.norm(stream)


def affine(module: nn.Module) -> Affine:
    """Return the linear map of a `Linear` or `Conv1D` module, as a view. ValueError for packed (quantised) weights."""
    if not isinstance(module, nn.Linear | Conv1D):
        raise TypeError(f"expected a Linear or Conv1D, got {type(module).__name__}")
    if not module.weight.is_floating_point():
        raise ValueError(
            f"weights of the model are packed ({type(module).__name__} of {module.weight.dtype}), and contributions "
            "need them as they are: load it without quantisation"
        )
    weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
    return Affine(weight.detach(), None if module.bias is None else module.bias.detach())


def norm(module: nn.Module | None) -> Norm | None:
    """Return the parameters of a LayerNorm or an RMSNorm. TypeError for any other module."""
    if module is None:
        return None
    if isinstance(module, nn.LayerNorm):
        weight, bias = (None if p is None else p.detach() for p in (module.weight, module.bias))
        return Norm(weight, bias, float(module.eps))
    if not type(module).__name__.endswith("RMSNorm"):
        raise TypeError(f"expected a LayerNorm or RMSNorm, got {type(module).__name__}")
    return rms_norm(module)


def rms_norm(module: Any) -> Norm:
    """Return the parameters of an RMSNorm, whose γ is its weight or, as in Gemma, 1 + weight.

    Which of the two is found by running the module, so that no other formula goes unnoticed. TypeError for neither.
    """
    eps = float(module.eps if hasattr(module, "eps") else module.variance_epsilon)
    weight: Tensor = module.weight.detach()
    probe = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device)
    expected = module.forward(probe).detach().float()

    def error(gamma: Tensor) -> float:
        candidate = Norm(gamma.float(), None, eps, centred=False)
        x = probe.float()
        x = candidate.scale(candidate.standardise(x, candidate.inverse_std(x)), with_bias=False)
        return float(((x - expected).abs() - 1e-2 * expected.abs()).max())

    # The nearer of the two: for large weights they are nearly the same.
    gamma = min((weight, 1 + weight), key=error)
    if error(gamma) > 1e-3:
        raise TypeError(f"{type(module).__name__} scales neither by its weight nor by 1 + its weight")
    return Norm(gamma, None, eps, centred=False)
