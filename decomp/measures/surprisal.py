"""What is said of a prediction beside its log probability: entropy, and the correction of words for the space
that a byte-level token begins with (Pimentel & Meister 2024; Oh & Schuler 2024)."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.ablation import Unembedding
from decomp.corpus.tokenizer import Tokenizer

LOGITS_BYTES = 2**25
"""Of logits, and what is made of them, at once."""
COPIES = 4
"""Logits, their log probabilities, the probabilities, and their part in a sum."""


def next_log_probs(hidden: Float[Tensor, "T E"], unembedding: Unembedding) -> Iterator[Float[Tensor, "t V"]]:
    """Yield natural logarithms of the next token's distribution, a few targets at a time."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    row = COPIES * len(unembedding.weight) * dtype.itemsize
    for part in hidden.split(max(1, LOGITS_BYTES // row)):
        yield unembedding.logits(part).to(dtype).log_softmax(-1)


def next_entropy(hidden: Float[Tensor, "T E"], unembedding: Unembedding) -> Float[Tensor, " T"]:
    """Return the entropy of the next token's distribution, in bits."""
    entropies = [torch.special.entr(log_prob.exp()).sum(-1) for log_prob in next_log_probs(hidden, unembedding)]
    return torch.cat(entropies) / math.log(2)


def next_log2_mass(
    hidden: Float[Tensor, "T E"], unembedding: Unembedding, members: Bool[Tensor, " V"]
) -> Float[Tensor, " T"]:
    """Return the log2 probability that the next token is one of some, in bits."""
    masses = [log_prob[:, members].logsumexp(-1) for log_prob in next_log_probs(hidden, unembedding)]
    return torch.cat(masses) / math.log(2)


def begins_word(tokenizer: Tokenizer, vocab: int) -> Bool[Tensor, " V"]:
    """Return which tokens can't go on a word: those that begin with white space, and the special ones."""
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.batch_decode([[index] for index in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    begins = [text[:1].isspace() or index in special for index, text in enumerate(texts)]
    return torch.tensor([*begins, *[False] * (vocab - len(begins))])


def boundary_correction(
    log2_boundary: Float[Tensor, " T"], words: Int[Tensor, " T"], first: int
) -> Float[Tensor, " words"]:
    """Return what makes each word's log2 probability that of the whole word (Pimentel & Meister 2024, theorem 2).

    A word gains the probability that it ends after its last token, and loses that the word before it ends, which the
    space of its first token has counted already. Nothing comes before the word `first`, which begins the text.
    """
    last = torch.searchsorted(words, torch.arange(int(words[-1]) + 1, device=words.device), right=True) - 1
    ended = log2_boundary[last]
    before = torch.cat([ended.new_zeros(1), ended[:-1]])
    before[first] = 0
    return ended - before
