"""The settings of scores, contrasts, contexts and evaluations, checked without a model, without importing torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from decomp.corpus.article import Article
from decomp.corpus.context_items import LEVELS, ContextItem
from decomp.corpus.source_kinds import check_segments, check_sources, has_groups
from decomp.corpus.targets import ALL, Target, parse_targets, target_names
from decomp.corpus.word_lists import with_words
from decomp.corpus.words import check_white_space
from decomp.io.records import Fields
from decomp.measures.contrast_request import MULTI_TOKEN, MultiToken, contrastive_request, default_measures
from decomp.measures.options import begins_with_bos, find_measures, request_from
from decomp.measures.registry import Measure, check_foils, check_function
from decomp.measures.request import Request
from decomp.tables.reduction import Reduction

if TYPE_CHECKING:
    from decomp.corpus.sources import Sources

KEPT = tuple(field.name for field in fields(Reduction))
"""Options that choose the rows of a table."""
PLACEMENT = ("dtype", "device", "revision")
"""Options of a model, which apply only where it is given by name."""


def split(names: Iterable[str], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options with these names, and all others."""
    named = {name: options[name] for name in names if name in options}
    return named, {name: value for name, value in options.items() if name not in named}


def check_least(least: int = 1, /, **numbers: int | None) -> None:
    """Raise ValueError for a number that is smaller than `least`, or not whole; None is no number."""
    for name, number in numbers.items():
        if number is not None and not (isinstance(number, int) and number >= least):
            raise ValueError(f"{name} must be at least {least}, not {number!r}")


def defaults_of(family: type) -> dict[str, Any]:
    """Return the settings of a dataclass that have a default, with their defaults."""
    return {field.name: field.default for field in fields(family) if field.default is not MISSING}


@dataclass(frozen=True)
class ScoringSettings:
    """The settings of `decomp.score`; those with a default have the name that a person gives them."""

    articles: Sequence[Article]
    """The articles, with the words of the list `words` and their annotations."""
    measures: Sequence[Measure]
    request: Request
    reduction: Reduction
    placement: Mapping[str, Any]
    """The model's dtype, device and revision, as far as they are given."""
    unit: Literal["token", "word"] = "token"
    sources: "Sources | None" = None
    words: Path | None = None
    fields: Fields = None
    entropy: bool = False
    corrected: bool = False
    targets: int | str | Sequence[int | str] = (ALL,)
    strongest: int | None = None
    stride: int | None = None
    bos: bool | None = None
    max_new_tokens: int | None = None
    sample: bool = False
    temperature: float = 1.0
    seed: int = 0

    @property
    def spans(self) -> list[int]:
        """Return the numbers of units (tokens or words) that are predicted together, of all targets."""
        given = (target.count for target in parse_targets(self.targets) if target is not None)
        return [self.request.span, *given]

    def check(self) -> None:
        """Raise ValueError for settings that are unknown or don't go together."""
        check_least(max_new_tokens=self.max_new_tokens, strongest=self.strongest)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature!r}")
        self.check_measures()
        self.check_unit()
        check_groups(self.measures, self.request, self.sources, self.unit)
        check_segments(self.sources, self.articles)
        if self.corrected:
            check_white_space(self.articles)

    def check_measures(self) -> None:
        """Raise ValueError for measures that don't take the request's function, or its number of strongest sources."""
        for measure in self.measures:
            measure.check_strongest(self.request)
            measure.function_of(self.request)
        check_foils(self.request.function, given=False)
        if self.strongest is not None and ALL in target_names(self.targets):
            raise ValueError("--strongest (strongest=) is for single targets and spans: give --target (targets=)")

    def check_unit(self) -> None:
        """Raise ValueError for measures or settings that are not defined for the unit, for spans, or for targets."""
        if self.unit not in ("token", "word"):
            raise ValueError(f"the unit must be token or word, not {self.unit!r}")
        if self.corrected and self.unit == "token":
            raise ValueError("--corrected is for words: give --unit word (unit='word')")
        targets: list[Target | None] = parse_targets(self.targets)
        if self.unit == "token" and max(self.spans) == 1:
            return
        if (self.unit == "word" or self.request.span > 1) and targets != [None]:
            raise ValueError("--target names tokens, 10:14 those from 10 to 13: leave out --unit word and --span")
        for measure in self.measures:
            measure.check_together(replace(self.request, span=max(self.spans)))


def scoring_settings(
    articles: Sequence[Article], measures: str | Sequence[str] = "delta_lp", **settings: Any
) -> ScoringSettings:
    """Return the settings of `decomp.score` for some articles, by name.

    They are the fields of `ScoringSettings` that have a default, those of `Request` and its families, those of
    `Reduction`, and dtype, device and revision of the model. ValueError for settings that are unknown or don't go
    together, and for a list of words that does not fit the articles.
    """
    own, options = split(defaults_of(ScoringSettings), settings)
    kept, options = split(KEPT, options)
    placement, options = split(PLACEMENT, options)
    reduction = Reduction(**kept)
    request = replace(request_from(options), strongest=own.get("strongest"))
    articles = with_annotations(articles, own.get("words"), own.get("fields"))
    bos = begins_with_bos(options) if own.get("bos") is None else own["bos"]
    found = ScoringSettings(articles, find_measures(measures), request, reduction, placement, **{**own, "bos": bos})
    found.check()
    return found


def with_annotations(articles: Sequence[Article], words: Path | None, fields: Fields) -> list[Article]:
    """Return articles with the words of a list and their annotations, as they are without a list.

    ValueError for names of columns without a list, and for a list that does not fit the articles.
    """
    if fields and words is None:
        raise ValueError("--field (fields=) names columns of the list of words: give --words (words=)")
    return list(articles) if words is None else with_words(words, list(articles), fields)


def check_groups(
    measures: Sequence[Measure],
    request: Request,
    sources: "Sources | None",
    unit: Literal["token", "word"] = "token",
) -> None:
    """Raise ValueError for sources that are unknown, or that a measure is not defined for."""
    check_sources(sources, unit)
    if has_groups(sources):
        for measure in measures:
            measure.check_sources(request)


@dataclass(frozen=True)
class ContrastSettings:
    """The settings of `decomp.contrast`; those with a default have the name that a person gives them."""

    requests: Sequence[tuple[Measure, Request]]
    """The measures, each with the request by which it explains a contrast."""
    reduction: Reduction
    placement: Mapping[str, Any]
    """The model's dtype, device and revision, as far as they are given."""
    multi_token: MultiToken = "first"
    sources: "Sources | None" = None
    bos: bool | None = None


def contrast_settings(measures: str | Sequence[str] = (), **settings: Any) -> ContrastSettings:
    """Return the settings of `decomp.contrast` by name; without measures, those that explain a contrast.

    ValueError for settings that are unknown or don't go together.
    """
    own, options = split(defaults_of(ContrastSettings), settings)
    kept, options = split(KEPT, options)
    placement, options = split(PLACEMENT, options)
    reduction, multi_token, sources = Reduction(**kept), own.get("multi_token", "first"), own.get("sources")
    if multi_token not in MULTI_TOKEN:
        raise ValueError(f"multi_token must be first or sum, not {multi_token!r}")
    chosen = find_measures(measures or default_measures(multi_token, has_groups(sources)))
    request = request_from(options)
    requests = [(measure, contrastive_request(measure, request, multi_token)) for measure in chosen]
    for measure, contrastive in requests:
        measure.function_of(contrastive)
    check_groups(chosen, request, sources)
    bos = begins_with_bos(options) if own.get("bos") is None else own["bos"]
    return ContrastSettings(requests, reduction, placement, multi_token, sources, bos)


@dataclass(frozen=True)
class ContextSettings:
    """The settings of `decomp.context`; those with a default have the name that a person gives them."""

    measures: Sequence[Measure]
    request: Request
    placement: Mapping[str, Any]
    """The model's dtype, device and revision, as far as they are given."""
    refine: int = 0
    refine_top: int = 1
    max_new_tokens: int = 64
    bos: bool | None = None


def context_settings(measures: str | Sequence[str] = "delta_lp", **settings: Any) -> ContextSettings:
    """Return the settings of `decomp.context` by name. ValueError for those that are unknown or don't go together."""
    own, options = split(defaults_of(ContextSettings), settings)
    placement, options = split(PLACEMENT, options)
    bos = begins_with_bos(options) if own.get("bos") is None else own["bos"]
    found = ContextSettings(find_measures(measures), request_from(options), placement, **{**own, "bos": bos})
    check_least(refine_top=found.refine_top, max_new_tokens=found.max_new_tokens)
    if found.refine not in range(len(LEVELS)):
        raise ValueError(f"refine must be 0, 1 (sentences) or 2 (words too), not {found.refine!r}")
    if found.request.decomposition_length is not None or found.request.extra:
        raise ValueError("segments are all kept, and are all that is scored: leave out decomposition_length and extra")
    for measure in found.measures:
        measure.check_answer(found.request)
    return found


def faithfulness_settings(
    articles: Sequence[Article],
    measures: str | Sequence[str],
    *,
    count: int | None,
    removals: Sequence[str],
    drop_in: str,
    draws: int,
    seed: int,
    batch_size: int | None,
    **settings: Any,
) -> ScoringSettings:
    """Return the settings of scores whose faithfulness is evaluated; ValueError as for `scoring_settings`."""
    check_function(drop_in)
    check_least(count=count, batch_size=batch_size)
    check_least(2, draws=draws)
    return scoring_settings(articles, measures, **settings)


def agreement_settings(
    articles: Sequence[Article], measures: str | Sequence[str], *, seed: int, batch_size: int | None, **settings: Any
) -> ScoringSettings:
    """Return the settings of scores whose agreement is evaluated; ValueError as for `scoring_settings`."""
    check_least(batch_size=batch_size)
    return scoring_settings(articles, measures, **settings)


def alignment_settings(
    items: Sequence[Path],
    measures: str | Sequence[str],
    *,
    limit: int | None,
    fields: Fields,
    seed: int,
    batch_size: int,
    **settings: Any,
) -> ContrastSettings:
    """Return the settings of contrasts whose alignment is evaluated; ValueError as for `contrast_settings`."""
    check_least(limit=limit, batch_size=batch_size)
    if has_groups(settings.get("sources")):
        raise ValueError("alignment asks for known words among single tokens: leave out sources")
    return contrast_settings(measures, **settings)


def context_evaluation_settings(
    items: Sequence[ContextItem], measures: str | Sequence[str], *, seed: int, **settings: Any
) -> tuple[list[Measure], ContextSettings]:
    """Return the measures whose rankings of segments are evaluated, and the settings by which contexts are opened.

    ValueError as for `context_settings`, and for a measure that is not defined for segments.
    """
    chosen, opened = find_measures(measures), context_settings(**settings)
    for measure in chosen:
        measure.check_sources(opened.request)
    return chosen, opened
