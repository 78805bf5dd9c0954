"""Inputs, models and measures, opened and checked, for the functions of `decomp.api` and the commands.

Everything that can be refused without the model is refused before it is loaded.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import transformers
from jaxtyping import Bool, Int
from torch import Tensor

from decomp.corpus.article import Article
from decomp.corpus.batches import in_batches
from decomp.corpus.context_items import LEVELS, ContextItem
from decomp.corpus.contexts import TokenisedContext, tokenise_context
from decomp.corpus.contrast_items import Item, read_items, tokenise
from decomp.corpus.sources import Sources, check_fit, check_sources
from decomp.corpus.targets import ALL, Target, only_targets, parse_targets, target_names
from decomp.corpus.tokenizer import Tokenizer
from decomp.corpus.tokens import beginning_of_sequence
from decomp.corpus.windows import TokenisedWindow, Unit, continued, windows_of
from decomp.corpus.word_lists import annotation_kinds, with_words
from decomp.corpus.words import check_white_space
from decomp.evaluation import agreement, contexts
from decomp.evaluation.agreement import AgreementRows
from decomp.evaluation.alignment import AlignmentRows, alignment_work
from decomp.evaluation.contexts import ContextRows
from decomp.evaluation.faithfulness import FaithfulnessRows, Perturbation, choose_targets, faithfulness_work
from decomp.io.digests import digest
from decomp.io.records import Fields
from decomp.measures import Measure, Request
from decomp.measures.contexts import check_answer
from decomp.measures.contrast import Contrast, MultiToken, contrastive_request, default_measures, make_contrast
from decomp.measures.functions import find_function
from decomp.measures.options import begins_with_bos, find_measures, option_values, request_from
from decomp.measures.registry import check_foils
from decomp.measures.request import token_id
from decomp.measures.surprisal import begins_word
from decomp.measures.windows import check_predicted
from decomp.models.base import DecomposedModel
from decomp.models.loading import load_model
from decomp.runs.cost import cost_model, planned
from decomp.tables.blocks import Block
from decomp.tables.contexts import ContextScorer
from decomp.tables.contrasting import Contraster, ItemBlock
from decomp.tables.intervals import MeanTable
from decomp.tables.leading_columns import LeadingColumns
from decomp.tables.reduction import Reduction
from decomp.tables.scoring import Scorer
from decomp.tables.work import Work, item_of

log = logging.getLogger(__name__)

T = TypeVar("T")

Model = str | Path | tuple[DecomposedModel, Tokenizer]
"""The name of a model, or the pair (model, tokenizer) that `load_model` gives."""


def open_model(
    model: Model, dtype: str | None = None, device: str | None = None, revision: str | None = None
) -> tuple[DecomposedModel, Tokenizer]:
    """Return a model and its tokenizer, loaded if they are given by name.

    ValueError for names that `load_model` refuses, for objects that are neither a name nor a pair (model, tokenizer),
    and for a dtype, device or revision of a model that is loaded already.
    """
    if isinstance(model, str | Path):
        return load_model(str(model), dtype=dtype or "float32", device=device, revision=revision)
    if not (isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], DecomposedModel)):
        raise ValueError(
            f"the model must be a name, or the pair (model, tokenizer) of decomp.load_model, not {type(model).__name__}"
        )
    if given := [name for name, value in (("dtype", dtype), ("device", device), ("revision", revision)) if value]:
        raise ValueError(f"the model is loaded already: give {', '.join(given)} to decomp.load_model instead")
    return model


def check_least(least: int = 1, /, **numbers: int | None) -> None:
    """Raise ValueError for a number that is smaller than `least`, or not whole; None is no number."""
    for name, number in numbers.items():
        if number is not None and not (isinstance(number, int) and number >= least):
            raise ValueError(f"{name} must be at least {least}, not {number!r}")


def open_windows(
    articles: Sequence[Article],
    model: DecomposedModel,
    tokenizer: Tokenizer,
    stride: int | None,
    bos: bool,
    **units: Any,
) -> list[TokenisedWindow]:
    """Return the articles cut into windows that the model has room for; `units` are passed on to `windows_of`."""
    positions = model.max_length()
    return windows_of(articles, tokenizer, model.config, positions=positions, stride=stride, bos=bos, **units)


NOT_GIVEN = (("convention", "decomp"), ("sources", None))
"""Names and values of options that mean the same as no option, and so are not recorded."""


def account(command: str, model: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the account of how a table is made: the command (or function), a model's `about()`, versions, options."""
    return {
        "command": command,
        "model": dict(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "options": {name: plain(value) for name, value in options.items() if not is_omitted(name, value)},
    }


def is_omitted(name: str, value: Any) -> bool:
    """Return whether an option's value means the same as no option, and so is not recorded."""
    return any(name == own and (value is unsaid or value == unsaid) for own, unsaid in NOT_GIVEN)


def plain(value: Any) -> Any:
    """Return an option's value in the form of JSON; a file by its name and the digest of its contents."""
    if isinstance(value, Path):
        return [value.name, digest([value.read_bytes()]) if value.is_file() else None]
    if isinstance(value, Tensor):
        return value.tolist()
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def contents(articles: Sequence[Article], windows: Sequence[TokenisedWindow]) -> dict[str, str]:
    """Return the digests of a corpus and of its tokens."""
    return {
        "corpus": digest(article.content() for article in articles),
        "tokens": tokens_digest(window.ids for window in windows),
    }


def tokens_digest(texts: Iterable[Tensor]) -> str:
    """Return the digest of token ids."""
    return digest(ids.cpu().numpy().tobytes() for ids in texts)


KEPT = tuple(field.name for field in fields(Reduction))
"""Options that choose the rows of a table."""
PLACEMENT = ("dtype", "device", "revision")
"""Options of a model, which apply only where it is given by name."""


def split(names: Sequence[str], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options with these names, and all others."""
    named = {name: options[name] for name in names if name in options}
    return named, {name: value for name, value in options.items() if name not in named}


def all_settings(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    model: DecomposedModel,
    request: Request,
    reduction: Reduction | None = None,
) -> dict[str, Any]:
    """Return the settings of a function, with the defaults of those that are not given."""
    parameters = signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    kept = {} if reduction is None else asdict(reduction)
    own = {"dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type}
    settings = {**defaults, **kept, **own, **option_values(request), **given, **own}
    if settings["baseline"] == "auto":
        settings["baseline"] = request.gradients.baseline
    if settings.get("bos") is None:
        settings["bos"] = begins_with_bos(given)
    return {name: value for name, value in settings.items() if name != "revision"}


@dataclass(frozen=True)
class Scoring:
    """A corpus cut into windows, with the model and the measures that score it."""

    model: DecomposedModel
    tokenizer: Tokenizer
    articles: Sequence[Article]
    windows: list[TokenisedWindow]
    scorer: Scorer

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        return self.scorer.columns

    def blocks_by_window(self, batch_size: int | None = None) -> Iterator[Block]:
        """Yield the rows of each window, computed when they are asked for."""
        return self.scorer.blocks_by_window(self.model, self.windows, batch_size)

    def work(self, batch_size: int | None = None) -> Work[TokenisedWindow]:
        """Return the work behind the table of scores: the windows, with their costs and batches."""
        positions = self.model.max_length()
        cost = cost_model(self.model, self.scorer.request.decomposition_length)
        plan = planned(self.windows, cost, self.scorer.leading.sources, self.scorer.leading.unit)
        batches = in_batches([item.tokens for item in plan], batch_size, positions)
        compute, columns = self.scorer.part, self.columns
        return Work("window", self.windows, plan, batches, compute, columns, unit_cost=cost(positions))

    def about(self, command: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the account of how the table is made; `given` are the settings that were given to the command."""
        settings = all_settings(open_scoring, given, self.model, self.scorer.request, self.scorer.reduction)
        names = [measure.name for measure in self.scorer.measures]
        targets = target_names(settings["targets"])
        options = {**settings, "word_list": settings["words"], "measures": names, "targets": targets}
        made = account(command, self.model.about(), {n: v for n, v in options.items() if n != "words"})
        return {**made, **contents(self.articles, self.windows)}


def open_scoring(
    articles: Sequence[Article],
    model: Model = "demo-opt",
    measures: str | Sequence[str] = "delta_lp",
    *,
    unit: Unit = "token",
    sources: Sources | None = None,
    words: Path | None = None,
    fields: Fields = None,
    entropy: bool = False,
    corrected: bool = False,
    targets: int | str | Sequence[int | str] = (ALL,),
    strongest: int | None = None,
    stride: int | None = None,
    bos: bool | None = None,
    max_new_tokens: int | None = None,
    sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Scoring:
    """Return articles cut into windows, with the measures that score them; the settings are those of `decomp.score`.

    `options` are the fields of `Request` and its families, those of `Reduction`, and dtype, device and revision of the
    model. ValueError for settings that are unknown or don't go together, an article or model that can't be read, and a
    text without room for `max_new_tokens`.
    """
    check_least(max_new_tokens=max_new_tokens, strongest=strongest)
    kept, options = split(KEPT, options)
    placement, options = split(PLACEMENT, options)
    reduction = Reduction(**kept)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature!r}")
    wanted = parse_targets(targets)
    articles = with_annotations(articles, words, fields)
    chosen, request = find_measures(measures), replace(request_from(options), strongest=strongest)
    check_measures(chosen, request, targets)
    check_units(chosen, request, unit, wanted, corrected)
    check_groups(chosen, request, sources, unit)
    if corrected:
        check_white_space(articles)
    decomposed, tokenizer = open_model(model, **placement)
    bos = begins_with_bos(options) if bos is None else bos
    windows = open_windows(articles, decomposed, tokenizer, stride, bos, unit=unit, span=request.span)
    if max_new_tokens is not None:
        windows = [let_write(windows, decomposed, tokenizer, max_new_tokens, sample, temperature, seed)]
    check_fit(sources, windows)
    windows = only_targets(windows, wanted)
    check_predicted(windows, unit, request.span)
    boundaries = word_boundaries(decomposed, tokenizer) if corrected else None
    spans, ids = any(window.span > 1 for window in windows), any(article.id for article in articles)
    leading = LeadingColumns(unit, spans, ids, entropy, boundaries, sources, annotation_kinds(articles))
    scorer = Scorer(chosen, request.resolved(decomposed, tokenizer), leading, reduction)
    return Scoring(decomposed, tokenizer, articles, windows, scorer)


def with_annotations(articles: Sequence[Article], words: Path | None, fields: Fields) -> list[Article]:
    """Return articles with the words of a list and their annotations, as they are without a list.

    ValueError for names of columns without a list, and for a list that does not fit the articles.
    """
    if fields and words is None:
        raise ValueError("--field (fields=) names columns of the list of words: give --words (words=)")
    return list(articles) if words is None else with_words(words, list(articles), fields)


def check_measures(measures: Sequence[Measure], request: Request, targets: int | str | Sequence[int | str]) -> None:
    """Raise ValueError for measures that don't take the request's function, or its number of strongest sources."""
    for measure in measures:
        measure.check_strongest(request)
        measure.function_of(request)
    check_foils(request.function, given=False)
    if request.strongest is not None and ALL in target_names(targets):
        raise ValueError("--strongest (strongest=) is for single targets and spans: give --target (targets=)")


def check_units(
    measures: Sequence[Measure], request: Request, unit: Unit, targets: Sequence[Target | None], corrected: bool
) -> None:
    """Raise ValueError for measures or settings that are not defined for this unit, for spans, or for these targets."""
    if unit not in ("token", "word"):
        raise ValueError(f"the unit must be token or word, not {unit!r}")
    if corrected and unit == "token":
        raise ValueError("--corrected is for words: give --unit word (unit='word')")
    spans = [request.span, *(target.count for target in targets if target is not None)]
    if unit == "token" and max(spans) == 1:
        return
    if (unit == "word" or request.span > 1) and targets != [None]:
        raise ValueError("--target names tokens, 10:14 those from 10 to 13: leave out --unit word and --span")
    for measure in measures:
        measure.check_together(replace(request, span=max(spans)))


def check_groups(measures: Sequence[Measure], request: Request, sources: Sources | None, unit: Unit = "token") -> None:
    """Raise ValueError for sources that are unknown, or that a measure is not defined for."""
    check_sources(sources, unit)
    if sources is not None and not (isinstance(sources, str) and sources == "token"):
        for measure in measures:
            measure.check_sources(request)


def word_boundaries(model: DecomposedModel, tokenizer: Tokenizer) -> Bool[Tensor, " V"]:
    """Return which tokens of the vocabulary can't continue a word."""
    return begins_word(tokenizer, len(model.unembedding().weight))


def let_write(
    windows: Sequence[TokenisedWindow],
    model: DecomposedModel,
    tokenizer: Tokenizer,
    max_new_tokens: int,
    sample: bool,
    temperature: float,
    seed: int,
) -> TokenisedWindow:
    """Return a text with the model's continuation, of which only the continuation is predicted.

    ValueError for a text without tokens, or longer than the model's positions.
    """
    if len(windows) != 1:
        raise ValueError(
            f"the text is longer than the model's {model.max_length()} positions: shorten it"
            if windows
            else "the text has no tokens: the model needs some to continue"
        )
    ids = windows[0].ids.to(model.device)
    new_ids = model.write(ids, max_new_tokens, sample=sample, temperature=temperature, seed=seed).cpu()
    return continued(windows[0], new_ids, tokenizer)


@dataclass(frozen=True)
class Contrasting:
    """Tokenised contrast items, with the model and the measures that score them."""

    model: DecomposedModel
    tokenizer: Tokenizer
    contrasts: Sequence[Contrast]
    contraster: Contraster

    def rows_by_item(self, batch_size: int = 16) -> Iterator[ItemBlock]:
        """Yield the rows of each item, computed when they are asked for."""
        return self.contraster.rows_by_item(self.model, self.tokenizer, self.contrasts, batch_size)

    def work(self, batch_size: int = 16) -> Work[Contrast]:
        """Return the work behind the table of scores: the items, with their costs and batches."""
        plan = [item_of(contrast.item.item.place, contrast.context) for contrast in self.contrasts]
        batches = in_batches([item.tokens for item in plan], batch_size, 0)
        compute = partial(self.contraster.part, self.tokenizer)
        return Work("item", self.contrasts, plan, batches, compute, self.contraster.columns)

    def contents(self) -> dict[str, str]:
        """Return the digest of the items' tokens."""
        return {"tokens": tokens_digest(text.ids for contrast in self.contrasts for text in contrast.texts)}

    def about(self, command: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the account of how the table is made; `given` are the settings that were given."""
        measures, requests = zip(*self.contraster.requests, strict=True)
        settings = all_settings(open_contrasting, given, self.model, requests[0], self.contraster.reduction)
        options = {**settings, "function": given.get("function"), "measures": [measure.name for measure in measures]}
        return account(command, self.model.about(), options)


def open_contrasting(
    items: Sequence[Item],
    model: Model = "demo-opt",
    measures: str | Sequence[str] = (),
    *,
    multi_token: MultiToken = "first",
    sources: Sources | None = None,
    bos: bool | None = None,
    **options: Any,
) -> Contrasting:
    """Return tokenised items with the measures that score them; the settings are those of `decomp.contrast`.

    ValueError for settings that are unknown or don't go together, and for items that can't be scored.
    """
    kept, options = split(KEPT, options)
    placement, options = split(PLACEMENT, options)
    reduction = Reduction(**kept)
    if multi_token not in ("first", "sum"):
        raise ValueError(f"multi_token must be first or sum, not {multi_token!r}")
    has_groups = sources is not None and not (isinstance(sources, str) and sources == "token")
    chosen, request = find_measures(measures or default_measures(multi_token, has_groups)), request_from(options)
    requests = [(measure, contrastive_request(measure, request, multi_token)) for measure in chosen]
    check_groups(chosen, request, sources)
    decomposed, tokenizer = open_model(model, **placement)
    requests = [(measure, request.resolved(decomposed, tokenizer)) for measure, request in requests]
    bos = begins_with_bos(options) if bos is None else bos
    contrasts = open_contrasts(items, decomposed, tokenizer, multi_token, bos, sources)
    return Contrasting(decomposed, tokenizer, contrasts, Contraster(requests, multi_token, reduction, has_groups))


def open_contrasts(
    items: Sequence[Item],
    model: DecomposedModel,
    tokenizer: Tokenizer,
    multi_token: MultiToken,
    bos: bool,
    sources: Sources | None = None,
) -> list[Contrast]:
    """Return the items as tokens; those that the mode `first` can't score are left out, with a warning.

    ValueError if all are left out.
    """
    bos_id = beginning_of_sequence(tokenizer, model.config) if bos else None
    tokenised = [tokenise(item, tokenizer, model.max_length(), bos_id) for item in items]
    contrasts = [make_contrast(item, multi_token, model.device, sources) for item in tokenised]
    if omitted := [item.place for item, contrast in zip(items, contrasts, strict=True) if contrast is None]:
        message = (
            f"{len(omitted)} of {len(items)} items left out, the first is {omitted[0]}: as tokens, "
            "the target begins with the whole foil or the foil with the target; --multi-token sum scores them"
        )
        if len(omitted) == len(items):
            raise ValueError(message)
        log.warning(message)
    return [contrast for contrast in contrasts if contrast is not None]


def with_evidence(contrasting: Contrasting, decomposition_length: int | None) -> Contrasting:
    """Return the items that have evidence among the kept sources; the others are left out, with a warning.

    ValueError if all are left out.
    """
    every = contrasting.contrasts
    known = [c for c in every if not set(c.item.evidence).isdisjoint(c.prompt_tokens(decomposition_length))]
    kept = "its prompt" if decomposition_length is None else f"the {decomposition_length} most recent sources"
    if not known:
        raise ValueError(f"none of {len(every)} items has evidence that is a word of {kept}: alignment needs it")
    if len(known) < len(every):
        log.warning("%d of %d items left out: no evidence in %s", len(every) - len(known), len(every), kept)
    return replace(contrasting, contrasts=known)


@dataclass(frozen=True)
class Evaluating(Generic[T]):
    """An evaluation: its model, the work behind its table, and the account of how the table is made."""

    model: DecomposedModel
    work: Work[T]
    contents: Mapping[str, str]
    """Digests of the corpus or items that the evaluation is on."""
    made: Mapping[str, Any]


def open_faithfulness(
    articles: Sequence[Article],
    model: Model,
    measures: str | Sequence[str],
    *,
    count: int | None,
    removals: Sequence[str],
    drop_in: str,
    draws: int,
    seed: int,
    batch_size: int | None,
    **settings: Any,
) -> Evaluating[Any]:
    """Return the evaluation of faithfulness on predicted tokens; the settings are those of `decomp.faithfulness`."""
    function = find_function(drop_in)
    check_least(count=count, batch_size=batch_size)
    check_least(2, draws=draws)
    scoring = open_scoring(articles, model, measures, **settings)
    request = scoring.scorer.request
    replacements = {name: token_id(name, scoring.tokenizer, ("mask",)) for name in removals}
    sources = scoring.scorer.leading.sources
    chosen = choose_targets(scoring.windows, request.decomposition_length, count, seed, sources)
    perturbation = Perturbation(replacements, function, draws, seed)
    curves = FaithfulnessRows(scoring.scorer.measures, request, perturbation, sources)
    work = faithfulness_work(chosen, curves, batch_size, scoring.model.max_length())
    own = {"count": count, "removals": removals, "drop_in": drop_in, "draws": draws, "seed": seed}
    made = scoring.about("evaluate faithfulness", {**settings, **own, "batch_size": batch_size})
    return Evaluating(scoring.model, work, contents(articles, scoring.windows), made)


def open_agreement(
    articles: Sequence[Article],
    model: Model,
    measures: str | Sequence[str],
    *,
    seed: int,
    batch_size: int | None,
    **settings: Any,
) -> Evaluating[Any]:
    """Return the evaluation of agreement between measures on windows; the settings are those of `decomp.agreement`."""
    check_least(batch_size=batch_size)
    scoring = open_scoring(articles, model, measures, **settings)
    compute = AgreementRows(scoring.scorer.measures, scoring.scorer.request, scoring.scorer.leading.sources).block
    summary = MeanTable(agreement.COLUMNS, seed, agreement.refuse_none)
    work = replace(scoring.work(batch_size), compute=compute, computed=agreement.COMPUTED, summary=summary)
    made = scoring.about("evaluate agreement", {**settings, "seed": seed, "batch_size": batch_size})
    return Evaluating(scoring.model, work, contents(articles, scoring.windows), made)


def open_alignment(
    items: Sequence[Path],
    model: Model,
    measures: str | Sequence[str],
    *,
    limit: int | None,
    fields: Fields,
    seed: int,
    batch_size: int,
    **settings: Any,
) -> Evaluating[Any]:
    """Return the evaluation of alignment with evidence on items; the settings are those of `decomp.alignment`."""
    check_least(limit=limit, batch_size=batch_size)
    if settings.get("sources") not in (None, "token"):
        raise ValueError("alignment asks for known words among single tokens: leave out sources")
    read = list(chain.from_iterable(read_items(Path(path), fields)[:limit] for path in items))
    length = settings.get("decomposition_length")
    opened = with_evidence(open_contrasting(read, model, measures, **settings), length)
    aligned = AlignmentRows(opened.contraster.requests, length)
    work = alignment_work(opened.contrasts, aligned, batch_size, seed)
    own = {"items": items, "limit": limit, "seed": seed, "batch_size": batch_size}
    made = opened.about("evaluate alignment", {**settings, **own})
    return Evaluating(opened.model, work, opened.contents(), made)


@dataclass(frozen=True)
class ContextScoring:
    """Tokenised contexts with their answers, with the model and the measures that score them."""

    model: DecomposedModel
    tokenizer: Any
    contexts: Sequence[TokenisedContext]
    scorer: ContextScorer

    def work(self) -> Work[TokenisedContext]:
        """Return the work behind the table of scores: the contexts, with their costs and batches."""
        plan = [item_of(context.item.place, len(context.ids)) for context in self.contexts]
        batches = [range(number, number + 1) for number in range(len(plan))]
        compute = partial(self.scorer.part, self.tokenizer)
        return Work("item", self.contexts, plan, batches, compute, self.scorer.columns)

    def contents(self) -> dict[str, str]:
        """Return the digest of the items' tokens."""
        return {"tokens": tokens_digest(context.ids for context in self.contexts)}

    def about(self, command: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the account of how the table is made; `given` are the settings that were given."""
        settings = all_settings(open_contexts, given, self.model, self.scorer.request)
        options = {**settings, "measures": [measure.name for measure in self.scorer.measures]}
        return {**account(command, self.model.about(), options), **self.contents()}


def open_contexts(
    items: Sequence[ContextItem],
    model: Model = "demo-opt",
    measures: str | Sequence[str] = "delta_lp",
    *,
    refine: int = 0,
    refine_top: int = 1,
    max_new_tokens: int = 64,
    bos: bool | None = None,
    **options: Any,
) -> ContextScoring:
    """Return contexts and answers as tokens, with the measures that score them; `decomp.context` has the settings.

    ValueError for settings that are unknown or don't go together, and for items that can't be scored.
    """
    check_least(refine_top=refine_top, max_new_tokens=max_new_tokens)
    if refine not in range(len(LEVELS)):
        raise ValueError(f"refine must be 0, 1 (sentences) or 2 (words too), not {refine!r}")
    placement, options = split(PLACEMENT, options)
    chosen, request = find_measures(measures), request_from(options)
    if request.decomposition_length is not None or request.extra:
        raise ValueError("segments are all kept, and are all that is scored: leave out decomposition_length and extra")
    for measure in chosen:
        check_answer(measure, request)
    decomposed, tokenizer = open_model(model, **placement)
    bos, write = begins_with_bos(options) if bos is None else bos, partial(written, decomposed, max_new_tokens)
    positions = decomposed.max_length()
    tokenised = [tokenise_context(item, tokenizer, decomposed.config, positions, bos, write) for item in items]
    scorer = ContextScorer(chosen, request.resolved(decomposed, tokenizer), refine, refine_top)
    return ContextScoring(decomposed, tokenizer, tokenised, scorer)


def written(model: DecomposedModel, count: int, ids: Int[Tensor, " T"]) -> Int[Tensor, " new"]:
    """Return the tokens that a model writes after others, at most `count`, without the one that ends the text."""
    room = min(count, model.max_length() - len(ids))
    new = model.write(ids.to(model.device), room)
    ends = model.config.eos_token_id
    return new[:-1] if len(new) and int(new[-1]) in (ends if isinstance(ends, list) else [ends]) else new


def open_context_evaluation(
    items: Sequence[ContextItem],
    model: Model,
    measures: str | Sequence[str],
    *,
    seed: int,
    max_new_tokens: int = 64,
    bos: bool | None = None,
    **settings: Any,
) -> Evaluating[Any]:
    """Return the evaluation of segment rankings on items; the settings are those of `decomp.evaluate_context`."""
    chosen, request = find_measures(measures), request_from(split(PLACEMENT, settings)[1])
    for measure in chosen:
        measure.check_sources(request)
    given: dict[str, Any] = {**settings, "max_new_tokens": max_new_tokens, "bos": bos}
    opened = open_contexts(items, model, **given)
    begun = begins_with_bos(settings) if bos is None else bos
    judge = ContextRows(chosen, opened.scorer.request, opened.tokenizer, begun, seed)
    summary = MeanTable(contexts.COLUMNS, seed, dict)
    work = replace(opened.work(), compute=judge.block, computed=contexts.COMPUTED, summary=summary)
    made = opened.about("evaluate context", {**given, "seed": seed})
    made["options"]["measures"] = [measure.name for measure in chosen]
    return Evaluating(opened.model, work, opened.contents(), made)
