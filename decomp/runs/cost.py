"""The cost of windows, predicted from their lengths: operations for (target, source) pairs and for tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from decomp.core.model import Model
from decomp.core.pairs import Pairs, pair_offset
from decomp.core.partition import Partition
from decomp.corpus.sources import Sources
from decomp.corpus.windows import TokenisedWindow, Unit
from decomp.measures.windows import partition_of
from decomp.tables.work import WorkItem, window_key


@dataclass(frozen=True)
class CostModel:
    """The shape of a network and the decomposition length (None for all sources), from which costs are predicted."""

    layers: int
    hidden: int
    vocab: int
    """Entries of the vocabulary; 0 where no logits are computed from contributions."""
    decomposition_length: int | None

    def pairs(self, tokens: int, partition: Partition | None = None) -> int:
        """Return the number of (target, source) pairs of a text, whose sources are its tokens or a partition's."""
        if partition is not None:
            return len(Pairs(partition, self.decomposition_length or partition.count))
        return pair_offset(tokens, min(tokens, self.decomposition_length or tokens))

    def __call__(self, tokens: int, partition: Partition | None = None) -> int:
        """Return the floating-point operations that a text of so many tokens takes.

        Per pair 20 D² in each block (values, output, MLP) and 2 V D for the logits; per token 24 D² in each block of
        the recorded pass and 2 V D for the model's own logits.
        """
        logits = 2 * self.vocab * self.hidden
        block = self.layers * self.hidden**2
        return self.pairs(tokens, partition) * (20 * block + logits) + tokens * (24 * block + logits)


def cost_model(model: Model, decomposition_length: int | None, with_logits: bool = True) -> CostModel:
    """Return the cost model of windows under a model, with the logits that ΔLP needs or without."""
    config = model.config
    vocab = config.vocab_size if with_logits else 0
    return CostModel(config.num_hidden_layers, config.hidden_size, vocab, decomposition_length)


def work_items(
    windows: Sequence[TokenisedWindow], cost: CostModel, sources: Sources | None = None, unit: Unit = "token"
) -> list[WorkItem]:
    """Return the windows as items of work, each with its predicted cost in floating-point operations."""
    items = []
    for each in windows:
        window, length, partition = each.window, len(each.ids), partition_of(each, sources, unit)
        key = window_key(window.article, window.number)
        items.append(WorkItem(key, length, len(window.targets), cost.pairs(length, partition), cost(length, partition)))
    return items
