"""The methods by which every supported model decomposes a text, several texts, or texts in chunks of sources."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decomp.core.decomposition import Decomposition, assemble
from decomp.core.engine import Chunk, propagate
from decomp.core.partition import Labels, Partition, partitions_of
from decomp.core.rules import ActivationRule, GateRule, Rules
from decomp.io.amounts import DEFAULT_MEMORY, parse_bytes
from decomp.models.passes import Passes


class DecomposedModel(Passes):
    """A mixin for a `…ForCausalLM` class of transformers, by which its hidden states can be decomposed.

    The class needs a method `stages`, which says where a block keeps its weights.
    """

    def decompose(
        self,
        input_ids: Int[Tensor, "1 T"],
        *,
        attention_mask: Int[Tensor, "1 T"] | None = None,
        position_ids: Int[Tensor, "1 T"] | None = None,
        decomposition_length: int | None = None,
        activation_rule: ActivationRule = "tangent",
        gate_rule: GateRule = "half",
        output_layers: bool = False,
        memory: int | str = DEFAULT_MEMORY,
        sources: Labels | Partition | None = None,
    ) -> Decomposition:
        """Return the exact decomposition of one text's final hidden states (Oh & Schuler 2023).

        `decomposition_length` is the number of most recent sources kept for each target, all by default. `memory`
        limits the bytes of buffers, the result aside. `sources` gives a number for each token, of shape (T,): tokens
        of one number are one source; by default each token is one. ValueError for ids or labels of another shape, for
        hidden states that are not finite, and for a length below 1.

            >>> import decomp
            >>> model, tokenizer = decomp.load_model("demo-opt")
            >>> ids = tokenizer("The cat sat.", return_tensors="pt").input_ids
            >>> model.decompose(ids, decomposition_length=2).sources(3)  # the two most recent sources of position 3
            range(2, 4)
        """
        if input_ids.shape[:-1].numel() != 1:
            raise ValueError(
                f"decompose takes one text, input_ids of shape (T,) or (1, T), not {tuple(input_ids.shape)}: "
                "use decompose_batch for several"
            )
        (result,) = self.decompose_batch(
            input_ids.view(1, -1),
            attention_mask=None if attention_mask is None else attention_mask.view(1, -1),
            position_ids=None if position_ids is None else position_ids.view(1, -1),
            decomposition_length=decomposition_length,
            activation_rule=activation_rule,
            gate_rule=gate_rule,
            output_layers=output_layers,
            memory=memory,
            sources=None if sources is None else [sources],
        )
        return result

    @torch.no_grad()
    def decompose_batch(
        self,
        input_ids: Int[Tensor, "B T"] | Sequence[Int[Tensor, " T"]],
        *,
        attention_mask: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
        decomposition_length: int | None = None,
        activation_rule: ActivationRule = "tangent",
        gate_rule: GateRule = "half",
        output_layers: bool = False,
        memory: int | str = DEFAULT_MEMORY,
        sources: Sequence[Labels | Partition] | None = None,
    ) -> list[Decomposition]:
        """Return one decomposition for each text, without its padding; options and errors are those of `decompose`."""
        rules = Rules(activation_rule, gate_rule)
        texts = unpad(input_ids, attention_mask, position_ids)
        partitions = unpad_sources(sources, attention_mask, [len(ids) for ids, _ in texts])
        points = [self.record(ids, places, rules, output_layers) for ids, places in texts]
        length = check_decomposition_length(decomposition_length, max(len(p) for p in points))
        biases = [list(p.carry(torch.zeros_like(p.embedding), with_bias=True)) for p in points]
        sums = [list(p.carry(p.embedding, with_bias=False)) for p in points]
        packed = assemble(self.folded(gate_rule), points, length, parse_bytes(memory), output_layers, partitions)
        about = {**self.about(), "activation_rule": activation_rule, "gate_rule": gate_rule}
        return [
            Decomposition.from_streams(ids.cpu(), length, point, bias, total, rows, self.unembedding(), about, own)
            for (ids, _), point, bias, total, rows, own in zip(
                texts, points, biases, sums, packed, partitions, strict=True
            )
        ]

    @torch.no_grad()
    def iter_contributions(
        self,
        input_ids: Int[Tensor, "B T"] | Sequence[Int[Tensor, " T"]],
        *,
        attention_mask: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
        decomposition_length: int | None = None,
        activation_rule: ActivationRule = "tangent",
        gate_rule: GateRule = "half",
        memory: int | str = DEFAULT_MEMORY,
        sources: Sequence[Labels | Partition] | None = None,
    ) -> Iterator[Chunk]:
        """Yield contributions in chunks of sources, within `memory` bytes; each is valid until the next is made."""
        texts = unpad(input_ids, attention_mask, position_ids)
        partitions = unpad_sources(sources, attention_mask, [len(ids) for ids, _ in texts])
        points = [self.record(ids, places, Rules(activation_rule, gate_rule)) for ids, places in texts]
        length = check_decomposition_length(decomposition_length, max(len(p) for p in points))
        memory = parse_bytes(memory)
        yield from propagate(self.folded(gate_rule), points, length, memory, partitions=partitions)


def unpad(
    input_ids: Tensor | Sequence[Tensor], attention_mask: Tensor | None, position_ids: Tensor | None
) -> list[tuple[Int[Tensor, " T"], Int[Tensor, " T"] | None]]:
    """Return the token ids and position numbers of each text, without its padding."""
    texts = []
    for b, ids in enumerate(input_ids):
        if ids.ndim != 1:
            raise ValueError(f"input_ids must be (B, T) or a list of (T,), a text has shape {tuple(ids.shape)}")
        keep = slice(None) if attention_mask is None else attention_mask[b].bool()
        kept = ids[keep]
        if len(kept) == 0:
            raise ValueError(f"text {b} of the batch has no tokens: leave it out")
        texts.append((kept, None if position_ids is None else position_ids[b][keep]))
    if not texts:
        raise ValueError("the batch has no texts: give at least one")
    return texts


def unpad_sources(
    sources: Sequence[Labels | Partition] | None, attention_mask: Tensor | None, lengths: Sequence[int]
) -> list[Partition]:
    """Return the sources of each text, without its padding. ValueError for labels that do not fit the texts."""
    if sources is None:
        return partitions_of(lengths, None)
    if len(sources) != len(lengths):
        raise ValueError(f"sources must be given for each text: {len(lengths)} texts, {len(sources)} of labels")
    if attention_mask is None:
        return partitions_of(lengths, [Partition.of(own) for own in sources])
    masks = attention_mask.bool().cpu()
    return partitions_of(lengths, [without_padding(own, mask) for own, mask in zip(sources, masks, strict=True)])


def without_padding(labels: Labels | Partition, mask: Bool[Tensor, " T"]) -> Partition:
    """Return the sources of the tokens that are not padding; labels may leave the padding out already."""
    if isinstance(labels, Partition) or len(labels) != len(mask):
        return Partition.of(labels)
    return Partition.of(torch.as_tensor(labels).cpu()[mask])


def check_decomposition_length(decomposition_length: int | None, longest: int) -> int:
    """Return the decomposition length, by default that of the longest text. ValueError for one below 1."""
    if decomposition_length is None:
        return longest
    if decomposition_length < 1:
        raise ValueError(f"the decomposition length must be at least 1 (the target itself), not {decomposition_length}")
    return decomposition_length
