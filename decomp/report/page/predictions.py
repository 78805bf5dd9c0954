"""The likeliest tokens of a model at every position of a text."""

import math
from collections.abc import Sequence

import torch

from decomp.core.model import Model
from decomp.corpus.tokenizer import Tokenizer
from decomp.corpus.windows import TokenisedWindow
from decomp.measures.surprisal import next_log_probs
from decomp.report.readable import one_line, pieces_of

LIKELIEST = 5


@torch.no_grad()
def likely_tokens(
    model: Model, windows: Sequence[TokenisedWindow], tokenizer: Tokenizer, count: int = LIKELIEST
) -> dict[int, list[tuple[str, float]]]:
    """Return the likeliest tokens with their probabilities, as labels, for each predicted position of an article."""
    found: dict[int, list[tuple[str, float]]] = {}
    for window in windows:
        hidden = model.record(window.ids.to(model.device)).hidden[:-1]
        tops = [log_probs.topk(count) for log_probs in next_log_probs(hidden, model.unembedding())]
        if not tops:
            continue
        shares = torch.cat([top.values for top in tops]).tolist()
        ids = torch.cat([top.indices for top in tops]).tolist()
        for target in window.window.targets:
            names = readable(tokenizer.convert_ids_to_tokens(ids[target]))
            probabilities = [math.exp(share) for share in shares[target]]
            found[window.window.position(target + 1)] = list(zip(names, probabilities, strict=True))
    return found


def readable(tokens: Sequence[str]) -> list[str]:
    """Return tokens as labels, each decoded by itself."""
    spelling = "byte-level" if any(token.startswith(("Ġ", "Ċ")) for token in tokens) else None
    return [one_line(pieces_of([token], spelling)[0]) for token in tokens]
