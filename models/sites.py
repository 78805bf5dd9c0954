"""Where an architecture keeps what the rules need: its own words for norms, attention and MLP."""

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
    """A map that some columns of a module's output hold: all, a slice, or columns by number."""

    module: nn.Module
    columns: "slice | Int[Tensor, ' outputs']" = field(default_factory=lambda: slice(None))

    def affine(self) -> Affine:
        """Return the map's weights: a view, or for columns by number a copy."""
        joint = affine(self.module)
        return Affine(joint.weight[:, self.columns], None if joint.bias is None else joint.bias[self.columns])

    def of(self, output: Float[Tensor, "*rows joint"]) -> Float[Tensor, "*rows outputs"]:
        """Return this map's columns of the module's output."""
        return output[..., self.columns]


def interleaved(module: nn.Module, heads: int) -> tuple[Projection, Projection, Projection]:
    """Return queries, keys and values of a joint module whose output holds the three of each head together."""
    columns = torch.arange(affine(module).weight.shape[1]).view(heads, 3, -1)
    query, key, value = (Projection(module, columns[:, part].flatten()) for part in range(3))
    return query, key, value


@dataclass(frozen=True)
class AttentionSite:
    """Where one self-attention keeps its weights."""

    module: Any
    query: Projection
    key: Projection
    value: Projection
    output: nn.Module
    heads: int
    kv_heads: int

    kind = "attention"

    @property
    def last(self) -> nn.Module:
        """Return the module whose output is the attention's."""
        return self.output

    def operator(self) -> Attention:
        """Return the weights that contributions meet."""
        return Attention(self.value.affine(), affine(self.output), self.heads, self.kv_heads)

    def projections(self) -> tuple[Affine, Affine, Affine]:
        """Return the maps to queries, keys and values."""
        return self.query.affine(), self.key.affine(), self.value.affine()


@dataclass(frozen=True)
class MLPSite:
    """Where one MLP keeps its weights: `down(φ(up(x)))`, or with a gate `down(φ(gate(x)) ⊙ up(x))`."""

    up: Projection
    down: nn.Module
    activation: Callable[[Tensor], Tensor]
    gate: Projection | None = None

    kind = "mlp"

    def __call__(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the MLP's output in earnest, with the activations of x."""
        up = self.up.of(self.up.module(x))
        if self.gate is None:
            return self.down(self.activation(up))
        return self.down(self.activation(self.gate.of(self.gate.module(x))) * up)

    @property
    def entries(self) -> tuple[nn.Module, ...]:
        """Return the modules that are given the MLP's input."""
        return tuple(dict.fromkeys(p.module for p in (self.up, self.gate) if p is not None))

    @property
    def last(self) -> nn.Module:
        """Return the module whose output is the MLP's, and whose input are the neurons."""
        return self.down

    def operator(self) -> MLP:
        """Return the weights that contributions meet."""
        inputs = (self.up,) if self.gate is None else (self.up, self.gate)
        return MLP(tuple(projection.affine() for projection in inputs), affine(self.down))


@dataclass(frozen=True)
class MixtureSite:
    """Where a mixture of gated experts keeps its weights: by expert, gate and up in one projection, and down.

    The router returns its logits, the weights of the experts chosen, and which these are.
    """

    module: nn.Module
    """Router and experts together."""
    router: nn.Module
    experts: Any

    kind = "mlp"

    def __call__(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the mixture's output in earnest, with the experts that x chooses."""
        output: Tensor = self.module(x.reshape(1, -1, x.shape[-1]))
        return output.view(x.shape)

    @property
    def entries(self) -> tuple[nn.Module, ...]:
        """Return the module that is given the mixture's input."""
        return (self.module,)

    @property
    def last(self) -> nn.Module:
        """Return the module whose output is the mixture's."""
        return self.module

    def operator(self) -> Mixture:
        """Return the weights that contributions meet: views of those of all experts."""
        joint, down = (p.detach() for p in (self.experts.gate_up_proj, self.experts.down_proj))
        pairs = [(Affine(up.T), Affine(gate.T)) for gate, up in (own.chunk(2) for own in joint)]
        return Mixture(tuple(MLP(inputs, Affine(own.T)) for inputs, own in zip(pairs, down, strict=True)))


@dataclass(frozen=True)
class BranchSite:
    """One branch as an architecture describes it: `norm_out(body(norm_in(x)))`."""

    body: AttentionSite | MLPSite | MixtureSite
    norm_in: nn.Module | None = None
    norm_out: nn.Module | None = None

    @property
    def last(self) -> nn.Module:
        """Return the module whose output is added to the residual stream."""
        return self.body.last if self.norm_out is None else self.norm_out

    def branch(self) -> Branch:
        """Return the weights that contributions meet."""
        return Branch(self.body.operator(), norm(self.norm_in), norm(self.norm_out))

    def run(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return what an MLP adds to the stream x in earnest. ValueError for attention, which needs all positions."""
        if isinstance(self.body, AttentionSite):
            raise ValueError("attention can't be computed again one position at a time")
        return self.finish(self.body(x if self.norm_in is None else self.norm_in(x)))

    def finish(self, output: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the norm after the body in earnest: with the σ of what it is given."""
        return output if self.norm_out is None else self.norm_out(output)


@dataclass(frozen=True)
class StageSite:
    """Branches that read one residual stream, and the norm after their sum where there is one."""

    branches: tuple[BranchSite, ...]
    norm: nn.Module | None = None

    @classmethod
    def of(
        cls, body: AttentionSite | MLPSite | MixtureSite, norm_in: nn.Module | None = None, **more: Any
    ) -> "StageSite":
        """Return a stage with one branch; `more`: its `norm_out`, and the `norm` after the sum."""
        return cls((BranchSite(body, norm_in, more.get("norm_out")),), more.get("norm"))

    def stage(self) -> Stage:
        """Return the weights that contributions meet."""
        return Stage(tuple(branch.branch() for branch in self.branches), norm(self.norm))

    def finish(self, stream: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Return the norm after the sum in earnest: with the σ of what it is given."""
        return stream if self.norm is None else self.norm(stream)


def affine(module: nn.Module) -> Affine:
    """Return the map of a Linear (weights transposed, a view) or a Conv1D. ValueError for packed weights."""
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
    """Return the parameters of an RMSNorm, whose γ is its weight or, as Gemma's, 1 + weight.

    The module itself is asked which, so that no other formula goes unnoticed. TypeError if it is neither.
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
