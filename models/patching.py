"""A forward pass in which the inputs and outputs of every sublayer can be read and changed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from decomp.core.model import Patch
from decomp.models.running import running
from decomp.models.sites import AttentionSite, BranchSite, Projection, StageSite


class Hooks:
    """A set of hooks on a model's modules, which hand values of a forward pass to a patch."""

    def __init__(self, patch: Patch) -> None:
        self.patch = patch
        self.rows: tuple[int, ...] = ()
        self.stream: Tensor
        """The input of the last norm that an attention and an MLP share."""
        self.given: dict[int, Tensor] = {}
        """The input of a branch's projections, by the branch's number, where it has no norm of its own."""
        self.handles: list[Any] = []

    def shaped(self, x: Tensor) -> Float[Tensor, "B T _"]:
        """Return a value in the shape (B, T, …): some modules are given (B·T, D)."""
        return x.reshape(*self.rows, x.shape[-1])

    def embedding(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments of the first block, with the patch's value for the hidden states."""
        hidden = args[0] if args else kwargs["hidden_states"]
        self.rows = hidden.shape[:-1]
        patched = self.patch.embedding(hidden)
        return ((patched, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": patched})

    def input(self, stage: int, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return the patch's value for the input of a stage."""
        return (self.patch.input(stage, self.shaped(args[0])).view(args[0].shape),)

    def keep_stream(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Keep the input of a norm that an attention and an MLP share."""
        self.stream = args[0]

    def own_input(
        self, stage: int, shared: nn.Module | None, module: nn.Module, args: tuple[Tensor, ...]
    ) -> tuple[Tensor]:
        """Return the input of a branch after the norm that it shares with another, the same for all its projections."""
        if stage not in self.given:
            stream = args[0] if shared is None else self.stream
            patched = self.patch.input(stage, self.shaped(stream)).view(stream.shape)
            self.given[stage] = patched if shared is None else shared.forward(patched)
        return (self.given[stage],)

    def projected(
        self, stage: int, columns: Sequence[tuple[int, slice]], module: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> Tensor:
        parts = [self.patch.projected(stage, kind, output[..., part]) for kind, part in columns]
        if len(parts) == 1:
            return parts[0]
        # Queries, keys and values may be interleaved in one output: back to their places.
        places = torch.arange(output.shape[-1], device=output.device)
        order = torch.cat([places[part] for _, part in columns])
        return torch.cat(parts, -1)[..., order.argsort()]

    def output(self, stage: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Give the patch the output of a stage."""
        self.patch.output(stage, self.shaped(output))

    def mixed(self, stage: int, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Give the patch the mixed values of an attention, which its output projection reads."""
        self.patch.output(stage, self.shaped(args[0]))

    def last(self, stage: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the output of the last block with the patch's value for the hidden states after it."""
        if isinstance(output, tuple):
            return (self.patch.input(stage, output[0]), *output[1:])
        return self.patch.input(stage, output)

    def before(self, module: nn.Module, hook: Callable[..., Any], *bound: Any) -> None:
        """Put a hook before a module's forward pass; `bound` are its first arguments."""
        self.handles.append(module.register_forward_pre_hook(partial(hook, *bound)))

    def after(self, module: nn.Module, hook: Callable[..., Any], *bound: Any) -> None:
        """Put a hook after a module's forward pass; `bound` are its first arguments."""
        self.handles.append(module.register_forward_hook(partial(hook, *bound)))

    def attach(self, number: int, stage: StageSite) -> int:
        """Hook the branches of one stage, and the norm after their sum; return the number of the next stage."""
        norms = [branch.norm_in for branch in stage.branches]
        for branch in stage.branches:
            self.attach_branch(number, branch, shared=norms.count(branch.norm_in) > 1)
            number += 1
        for norm in {norm for norm in norms if norm is not None and norms.count(norm) > 1}:
            self.before(norm, self.keep_stream)
        if stage.norm is None:
            return number
        self.before(stage.norm, self.input, number)
        self.after(stage.norm, self.output, number)
        return number + 1

    def attach_branch(self, number: int, site: BranchSite, shared: bool) -> None:
        """Hook one attention or MLP; `shared` says whether it shares its norm with the branch beside it."""
        body = site.body
        if isinstance(body, AttentionSite):
            modules = columns_of_modules((body.query, body.key, body.value))
            for module, columns in modules.items():
                self.after(module, self.projected, number, columns)
            self.before(body.output, self.mixed, number)
            entries = list(modules)
        else:
            self.after(body.last, self.output, number)
            entries = list(body.entries)
        if site.norm_in is not None and not shared:
            self.before(site.norm_in, self.input, number)
            return
        for module in entries:
            self.before(module, self.own_input, number, site.norm_in)


def columns_of_modules(projections: Sequence[Projection]) -> dict[nn.Module, list[tuple[int, Any]]]:
    """Return for each module the numbers of the projections that its output holds, with the columns of each."""
    modules: dict[nn.Module, list[tuple[int, Any]]] = {}
    for kind, projection in enumerate(projections):
        modules.setdefault(projection.module, []).append((kind, projection.columns))
    return modules


@contextmanager
def patching(
    model: PreTrainedModel, blocks: Sequence[nn.Module], sites: Sequence[Sequence[StageSite]], patch: Patch
) -> Iterator[None]:
    """Keep hooks of `patch` on every stage of a model, and other threads from using it, while the context is open."""
    hooks, number = Hooks(patch), 0
    with running(model, model.config._attn_implementation):
        # Hooks are gone before another thread may run the model.
        try:
            hooks.handles.append(blocks[0].register_forward_pre_hook(hooks.embedding, with_kwargs=True))
            for stage in (stage for block in sites for stage in block):
                number = hooks.attach(number, stage)
            hooks.after(blocks[-1], hooks.last, number)
            yield
        finally:
            for handle in hooks.handles:
                handle.remove()
