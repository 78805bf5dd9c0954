"""Registering a user's own measure, which then appears in tables, commands and evaluations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from decomp.core.ablation import next_log2_prob
from decomp.core.model import Model
from decomp.measures.registry import Measure, add_measure
from decomp.measures.request import Request, Text
from decomp.measures.result import Scores

ScoreText = Callable[[Any, Text, Request], Float[Tensor, "T-1 T"]]
"""A function of the model, a text of T tokens, and the request; it returns scores of shape (T − 1, T)."""


@dataclass(frozen=True)
class TextByText:
    """An adapter that calls a measure of one text on several, and drops scores of sources after their target."""

    name: str
    score: ScoreText

    @torch.no_grad()
    def __call__(self, model: Model, texts: Sequence[Text], request: Request) -> Iterator[list[Scores]]:
        """Yield the scores of each text. ValueError for scores of another shape than (T − 1, T)."""
        for text in texts:
            scores, length = torch.as_tensor(self.score(model, text, request), device=text.ids.device), len(text.ids)
            if scores.shape != (length - 1, length):
                raise ValueError(
                    f"{self.name} gave scores of shape {tuple(scores.shape)} for a text of {length} tokens: "
                    f"expected {(length - 1, length)}, a row for each token that is predicted"
                )
            log2_prob = next_log2_prob(model.record(text.ids).hidden[:-1], text.ids[1:], model.unembedding())
            yield [Scores(self.name, text.targets, length, log2_prob, scores.tril(), {})]


def register_measure(
    name: str,
    compute: ScoreText,
    *,
    line: str = "",
    citation: str = "",
    unit: str = "",
    functions: Sequence[str] = (),
    default: str | None = None,
    together: Literal["sum", "targets", "sources"] | None = None,
) -> Measure:
    """Register a measure of your own by its name, for tables, commands and evaluations, and return it.

    `compute(model, text, request)` returns scores of shape (T − 1, T): row i says what each token k ≤ i does for the
    prediction of token i + 1; higher is more important. It is called for one text at a time, without gradients.

    `line`, `citation` and `unit` are shown by `decomp measures`. `functions` are the attributed functions that
    `request.function` may name, and `default` the one for requests that name none (by default the first); there are
    none for a measure that explains no number. `together` says which scores of single tokens add up to those of words
    and other groups: of `targets`, of `sources`, or of both (`sum`); None for neither.

    An installed package offers a measure to the commands by an entry point of the group `decomp.measures` that has the
    measure's name and whose import calls this function. ValueError for a name that is taken or can't be part of a
    table, and for unknown functions.

    A measure that needs no model, the nearness of each token to the one that is predicted:

    >>> import decomp
    >>> import torch
    >>> def nearness(model, text, request):
    ...     positions = torch.arange(len(text.ids))
    ...     return 1 / (positions[1:, None] - positions).clamp(min=1)
    >>> measure = decomp.register_measure("nearness", nearness, line="1 / distance in tokens")
    >>> table = decomp.score("The cat sat.", "demo-opt", measures=("delta_lp", "nearness"))
    >>> [(row.source_token, row.score) for row in table.select(measure="nearness", token="Ġcat")]
    [('</s>', 0.5), ('The', 1.0)]
    """
    chosen = default if default is not None or not functions else functions[0]
    measure = Measure(
        name, TextByText(name, compute), line, citation, unit, tuple(functions), chosen, together=together
    )
    add_measure(measure)
    return measure
