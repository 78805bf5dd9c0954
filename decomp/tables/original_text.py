"""ΔLP in the text format of the original research code (Oh & Schuler 2023), line for line."""

from collections.abc import Iterator, Sequence

from decomp.measures.result import Scores


def lines(identifier: str, result: Scores, tokens: Sequence[str]) -> Iterator[str]:
    """Yield the lines of one window in the original format: a paragraph per timestep, `-source` with LP without it.

    Timestep j predicts token j. `argmax` is the source of the largest ΔLP, other than the token at index 0 (the
    beginning of sequence); −1 where there is none. `distance` counts from the predicted token.
    """
    longest = 0
    for target in result.targets:
        step = target + 1
        first = max(0, step - result.decomposition_length)
        log2_prob = result.log2_prob[target].item()
        yield ""
        yield f"{identifier} Timestep {step}/{len(tokens) - 1}"
        yield f"LP({tokens[step]} | {' '.join(tokens[:step])}) = {log2_prob}"
        deltas = result.scores[target, first:step].tolist()
        for token, delta in zip(tokens[first:step], deltas, strict=True):
            yield f"-{token} = {log2_prob - delta};\tDelta LP: {delta}"
        candidates = range(max(first, 1), step)
        argmax = max(candidates, key=lambda k: deltas[k - first], default=-1)
        yield f"Timestep {step}, argmax: {argmax}, distance: {step - argmax}"
        longest = max(longest, step - argmax)
    yield f"Max distance: {longest}"
