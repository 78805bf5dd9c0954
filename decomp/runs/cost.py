"""What a window costs, predicted from its length: the arithmetic of its (target, source) pairs and of its tokens."""

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
    """Of a network's shape and the decomposition length (None for all sources)."""

    layers: int
    hidden: int
    vocab: int
    """0 where pairs meet no unembedding."""
    decomposition_length: int | None

    def pairs(self, tokens: int, partition: Partition | None = None) -> int:
        """Return the (target, source) pairs of a text."""
        if partition is not None:
            return len(Pairs(partition, self.decomposition_length or partition.count))
        return pair_offset(tokens, min(tokens, self.decomposition_length or tokens))

    def __call__(self, tokens: int, partition: Partition | None = None) -> int:
        """Return floating-point operations: 20 D² per pair and block (values, output, MLP), 2 V D for its logits;
        24 D² per token and block for the recorded pass, 2 V D for the model's own logits."""
        logits = 2 * self.vocab * self.hidden
        block = self.layers * self.hidden**2
        return self.pairs(tokens, partition) * (20 * block + logits) + tokens * (24 * block + logits)


def cost_model(model: Model, decomposition_length: int | None, with_logits: bool = True) -> CostModel:
    """Return what windows cost under a model, with the logits that ΔLP needs or without."""
    config = model.config
    vocab = config.vocab_size if with_logits else 0
    return CostModel(config.num_hidden_layers, config.hidden_size, vocab, decomposition_length)


def planned(
    windows: Sequence[TokenisedWindow], cost: CostModel, sources: Sources | None = None, unit: Unit = "token"
) -> list[WorkItem]:
    """Return what windows are predicted to cost."""
    items = []
    for each in windows:
        window, length, partition = each.window, len(each.ids), partition_of(each, sources, unit)
        key = window_key(window.article, window.number)
        items.append(WorkItem(key, length, len(window.targets), cost.pairs(length, partition), cost(length, partition)))
    return items
