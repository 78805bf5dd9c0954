"""Recording an operating point: one ordinary forward pass, with hooks that keep the values to be frozen."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUTanh, NewGELUActivation

from decomp.core.network import Branch, Network, Norm, Stage
from decomp.core.operating_point import FrozenBranch, FrozenStage, OperatingPoint
from decomp.core.operators import FrozenAttention, FrozenMixture, FrozenMLP, FrozenNorm
from decomp.core.rules import Activation, Rules, activation_slope, gate_derivatives, gate_slopes, linearise
from decomp.models.recomputed import RECORDING, RecomputedAttention
from decomp.models.routing import frozen_mixture
from decomp.models.running import running
from decomp.models.sites import AttentionSite, BranchSite, MixtureSite, MLPSite, StageSite


def in_one_kernel(activation: Activation) -> Activation:
    """Return an activation function as a single operation of PyTorch, where there is one, which is faster.

    Its values may differ from those of the model's own function by rounding, which is no error of the decomposition.
    """
    return GELUTanh() if isinstance(activation, NewGELUActivation) else activation


class Tape:
    """A store for the values that hooks keep of one forward pass, reduced at once to what is needed."""

    def __init__(self, model: PreTrainedModel, rules: Rules, for_gradients: bool, bias: bool = True) -> None:
        self.model, self.rules, self.for_gradients = model, rules, for_gradients
        # Gradients have no use for intercepts.
        self.bias = bias and not for_gradients
        self.states: list[Float[Tensor, "T D"]] = []
        """The inputs of the blocks with hooks, and the output of the last block."""
        self.norms: dict[nn.Module, FrozenNorm] = {}
        self.projected: dict[nn.Module, Float[Tensor, "T joint"]] = {}
        self.mlps: dict[nn.Module, FrozenMLP | FrozenMixture] = {}
        """The frozen MLPs and mixtures, by the module whose output is added to the residual stream."""
        self.calls: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def keep_state(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the hidden states that a block is given."""
        hidden = args[0] if args else kwargs["hidden_states"]
        self.states.append(hidden[0])

    def keep_last(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Keep the hidden states that the last block returns."""
        self.states.append((output[0] if isinstance(output, tuple) else output)[0])

    def keep_norm(self, norm: Norm, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Freeze a norm at its input."""
        x = args[0].reshape(-1, args[0].shape[-1])
        inverse_std = norm.inverse_std(x)
        standardised = norm.standardise(x, inverse_std) if self.for_gradients else None
        self.norms[module] = FrozenNorm(norm, inverse_std, standardised)

    def keep_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the arguments of an attention, so that its queries and keys can be recomputed with gradients."""
        self.calls[module] = args, kwargs

    def keep_projected(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Keep the pre-activations of an MLP until its neurons have been computed."""
        self.projected[module] = output.reshape(-1, output.shape[-1])

    def keep_mlp(self, site: MLPSite, branch: Branch, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Freeze an MLP at its pre-activations, as soon as its neurons have been computed."""
        mlp: Any = branch.operator
        activation = in_one_kernel(site.activation)
        up = site.up.of(self.projected[site.up.module])
        if site.gate is not None:
            gate = site.gate.of(self.projected[site.gate.module])
            offset, slopes = None, gate_slopes(activation, up, gate, self.rules.gate)
            derivatives = gate_derivatives(activation, up, gate) if self.for_gradients else ()
        else:
            slope, intercept = linearise(activation, up, self.rules.activation)
            offset = mlp.output(intercept, with_bias=False) if self.bias and bool(intercept.any()) else None
            slopes = (slope,)
            derivatives = (activation_slope(activation, up),) if self.for_gradients else ()
        for projection in (site.up, site.gate):
            if projection is not None:
                self.projected.pop(projection.module, None)
        self.mlps[site.last] = FrozenMLP(mlp, slopes, offset, derivatives)

    def keep_mixture(self, site: MixtureSite, branch: Branch, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Freeze a mixture of experts at its input and routing."""
        mixture: Any = branch.operator
        self.mlps[site.last] = frozen_mixture(site, mixture, self.rules.gate, self.for_gradients, *args)

    def frozen_branch(self, site: BranchSite, branch: Branch) -> FrozenBranch:
        """Return one branch, frozen at the recorded values."""
        norm_in, norm_out = (None if m is None else self.norms[m] for m in (site.norm_in, site.norm_out))
        body = site.body
        if isinstance(body, AttentionSite):
            call = self.calls.get(body.module)
            eager, query, key, mask, options = body.module.recorded
            rows = RecomputedAttention(self.model, body.module, eager, query, key, mask, options, call)
            return FrozenBranch(FrozenAttention(branch.operator, rows), norm_in, norm_out)  # type: ignore[arg-type]
        return FrozenBranch(self.mlps[body.last], norm_in, norm_out)

    def frozen_stage(self, site: StageSite, stage: Stage) -> FrozenStage:
        """Return one stage, frozen at the recorded values."""
        branches = tuple(map(self.frozen_branch, site.branches, stage.branches))
        return FrozenStage(branches, None if site.norm is None else self.norms[site.norm])


def starting_from(
    embedding: Float[Tensor, "T D"], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Change the arguments of the first block, so that it is given `embedding` in place of the tokens' own."""
    if args:
        return (embedding[None], *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": embedding[None]}


@contextmanager
def recording(
    tape: Tape,
    blocks: Sequence[nn.Module],
    sites: Sequence[Sequence[StageSite]],
    network: Network,
    final_norm: nn.Module | None,
    every_layer: bool,
    embedding: Float[Tensor, "T D"] | None = None,
) -> Iterator[None]:
    """Record on the tape a forward pass that is made while the context is open.

    With an `embedding`, the first block starts from it in place of the tokens' own.
    """
    handles: list[Any] = []
    stages = [pair for s, n in zip(sites, network.blocks, strict=True) for pair in zip(s, n, strict=True)]
    branches = [pair for s, n in stages for pair in zip(s.branches, n.branches, strict=True)]
    norms = [(s.norm, n.norm) for s, n in stages]
    norms += [pair for s, n in branches for pair in ((s.norm_in, n.norm_in), (s.norm_out, n.norm_out))]
    with running(tape.model, RECORDING):
        # Hooks are gone before another thread may run the model.
        try:
            if embedding is not None:
                handles.append(blocks[0].register_forward_pre_hook(partial(starting_from, embedding), with_kwargs=True))
            for block in blocks if every_layer else blocks[:1]:
                handles.append(block.register_forward_pre_hook(tape.keep_state, with_kwargs=True))
            if every_layer:
                handles.append(blocks[-1].register_forward_hook(tape.keep_last))
            for module, norm in dict([*norms, (final_norm, network.final_norm)]).items():
                if module is not None and norm is not None:
                    handles.append(module.register_forward_pre_hook(partial(tape.keep_norm, norm)))
            for site, branch in branches:
                handles += branch_hooks(site, branch, tape)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for site, _ in branches:
                getattr(site.body, "module", site).__dict__.pop("recorded", None)


def branch_hooks(site: BranchSite, branch: Branch, tape: Tape) -> Iterator[Any]:
    """Put the hooks of one attention, MLP or mixture on its modules, and return their handles."""
    body = site.body
    if isinstance(body, AttentionSite):
        if tape.for_gradients:
            yield body.module.register_forward_pre_hook(tape.keep_call, with_kwargs=True)
        return
    if isinstance(body, MixtureSite):
        yield body.experts.register_forward_pre_hook(partial(tape.keep_mixture, body, branch))
        return
    for module in {body.up.module, *([] if body.gate is None else [body.gate.module])}:
        yield module.register_forward_hook(tape.keep_projected)
    yield body.down.register_forward_pre_hook(partial(tape.keep_mlp, body, branch))


def operating_point(
    tape: Tape,
    sites: Sequence[Sequence[StageSite]],
    network: Network,
    final_norm: nn.Module | None,
    hidden: Float[Tensor, "T E"],
    every_layer: bool,
) -> OperatingPoint:
    """Return the operating point of one text, made of the recorded values."""
    return OperatingPoint(
        embedding=tape.states[0],
        blocks=tuple(
            tuple(map(tape.frozen_stage, block, stages)) for block, stages in zip(sites, network.blocks, strict=True)
        ),
        final_norm=None if final_norm is None else tape.norms[final_norm],
        project_out=network.project_out,
        hidden=hidden,
        hidden_layers=tuple(tape.states) if every_layer else (),
    )
