"""Entropy of predictions, and the correction of words' probabilities for tokens that begin with a space.

The correction is that of Pimentel & Meister (2024) and Oh & Schuler (2024).
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decomp.core.ablation import Unembedding
from decomp.corpus.tokenizer import Tokenizer

LOGITS_BYTES = 2**25
"""The bytes of logits, and of what is computed from them, that are held at a time."""
COPIES = 4
"""The number of tensors as large as the logits: these, log probabilities, probabilities, and terms of a sum."""


def next_log_probs(hidden: Float[Tensor, "T E"], unembedding: Unembedding) -> Iterator[Float[Tensor, "t V"]]:
    """Yield the natural logarithm of the next token's distribution, for a few targets at a time."""
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
    """Return the log2 probability, in bits, that the next token is any of the `members` of the vocabulary."""
    masses = [log_prob[:, members].logsumexp(-1) for log_prob in next_log_probs(hidden, unembedding)]
    return torch.cat(masses) / math.log(2)


def begins_word(tokenizer: Tokenizer, vocab: int) -> Bool[Tensor, " V"]:
    """Return the tokens that can't continue a word: those that begin with white space, and special tokens."""
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.batch_decode([[index] for index in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    begins = [text[:1].isspace() or index in special for index, text in enumerate(texts)]
    return torch.tensor([*begins, *[False] * (vocab - len(begins))])


def boundary_correction(
    log2_boundary: Float[Tensor, " T"], words: Int[Tensor, " T"], first: int
) -> Float[Tensor, " words"]:
    """Return the bits to add to each word's log2 probability (Pimentel & Meister 2024, theorem 2).

    The probability that the word ends after its last token is added; the probability that the word before it ends is
    subtracted, since the space of the word's first token includes it already. Nothing is subtracted from the word
    `first`, which begins the text.
    """
    last = torch.searchsorted(words, torch.arange(int(words[-1]) + 1, device=words.device), right=True) - 1
    ended = log2_boundary[last]
    before = torch.cat([ended.new_zeros(1), ended[:-1]])
    before[first] = 0
    return ended - before
