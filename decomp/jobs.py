"""Inputs, models and measures, opened and checked, for the functions of `decomp.api` and the commands.

Everything that can be refused without the model is refused before it is loaded.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import transformers
from jaxtyping import Bool, Int
from torch import Tensor

from decomp.corpus.article import Article
from decomp.corpus.batches import in_batches
from decomp.corpus.context_items import ContextItem
from decomp.corpus.contexts import TokenisedContext, tokenise_context
from decomp.corpus.contrast_items import Item, read_items, tokenise
from decomp.corpus.source_kinds import has_groups
from decomp.corpus.sources import Sources, check_fit
from decomp.corpus.targets import only_targets, parse_targets, target_names
from decomp.corpus.tokenizer import Tokenizer
from decomp.corpus.tokens import beginning_of_sequence
from decomp.corpus.windows import TokenisedWindow, continued, windows_of
from decomp.corpus.word_lists import annotation_kinds
from decomp.evaluation import agreement, contexts
from decomp.evaluation.agreement import AgreementRows
from decomp.evaluation.alignment import AlignmentRows, alignment_work
from decomp.evaluation.contexts import ContextRows
from decomp.evaluation.faithfulness import FaithfulnessRows, Perturbation, choose_targets, faithfulness_work
from decomp.io.digests import digest
from decomp.io.records import Fields
from decomp.measures import Request
from decomp.measures.contrast import Contrast, make_contrast
from decomp.measures.contrast_request import MultiToken
from decomp.measures.functions import find_function
from decomp.measures.options import begins_with_bos, option_values
from decomp.measures.request import token_id
from decomp.measures.surprisal import begins_word
from decomp.measures.windows import check_predicted
from decomp.models.base import DecomposedModel
from decomp.models.loading import load_model
from decomp.runs.cost import cost_model, work_items
from decomp.settings import (
    ContextSettings,
    ContrastSettings,
    ScoringSettings,
    agreement_settings,
    alignment_settings,
    context_evaluation_settings,
    defaults_of,
    faithfulness_settings,
)
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


def all_settings(
    family: type,
    given: Mapping[str, Any],
    model: DecomposedModel,
    request: Request,
    reduction: Reduction | None = None,
) -> dict[str, Any]:
    """Return all settings of a `family` (a class of `decomp.settings`), with the defaults of those not given."""
    kept = {} if reduction is None else asdict(reduction)
    own = {"dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type}
    settings = {**defaults_of(family), **kept, **own, **option_values(request), **given, **own}
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
        plan = work_items(self.windows, cost, self.scorer.leading.sources, self.scorer.leading.unit)
        batches = in_batches([item.tokens for item in plan], batch_size, positions)
        compute, columns = self.scorer.part, self.columns
        return Work("window", self.windows, plan, batches, compute, columns, unit_cost=cost(positions))

    def about(self, command: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the account of how the table is made; `given` are the settings that were given to the command."""
        settings = all_settings(ScoringSettings, given, self.model, self.scorer.request, self.scorer.reduction)
        names = [measure.name for measure in self.scorer.measures]
        targets = target_names(settings["targets"])
        options = {**settings, "word_list": settings["words"], "measures": names, "targets": targets}
        made = account(command, self.model.about(), {n: v for n, v in options.items() if n != "words"})
        return {**made, **contents(self.articles, self.windows)}


def open_scoring(settings: ScoringSettings, model: Model = "demo-opt") -> Scoring:
    """Return articles cut into windows, with the measures that score them.

    ValueError for a model that can't be read, for settings that do not fit its tokens, and for a text without room for
    `max_new_tokens`.
    """
    decomposed, tokenizer = open_model(model, **settings.placement)
    articles, unit, sources, request = settings.articles, settings.unit, settings.sources, settings.request
    windows = open_windows(
        articles, decomposed, tokenizer, settings.stride, bool(settings.bos), unit=unit, span=request.span
    )
    if settings.max_new_tokens is not None:
        windows = [let_write(windows, decomposed, tokenizer, settings)]
    check_fit(sources, windows)
    windows = only_targets(windows, parse_targets(settings.targets))
    check_predicted(windows, unit, request.span)
    boundaries = word_boundaries(decomposed, tokenizer) if settings.corrected else None
    spans, ids = any(window.span > 1 for window in windows), any(article.id for article in articles)
    annotations = annotation_kinds(articles)
    leading = LeadingColumns(unit, spans, ids, settings.entropy, boundaries, sources, annotations)
    scorer = Scorer(settings.measures, request.resolved(decomposed, tokenizer), leading, settings.reduction)
    return Scoring(decomposed, tokenizer, articles, windows, scorer)


def word_boundaries(model: DecomposedModel, tokenizer: Tokenizer) -> Bool[Tensor, " V"]:
    """Return which tokens of the vocabulary can't continue a word."""
    return begins_word(tokenizer, len(model.unembedding().weight))


def let_write(
    windows: Sequence[TokenisedWindow], model: DecomposedModel, tokenizer: Tokenizer, settings: ScoringSettings
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
    assert settings.max_new_tokens is not None
    how: dict[str, Any] = {"sample": settings.sample, "temperature": settings.temperature, "seed": settings.seed}
    return continued(windows[0], model.write(ids, settings.max_new_tokens, **how).cpu(), tokenizer)


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
        settings = all_settings(ContrastSettings, given, self.model, requests[0], self.contraster.reduction)
        options = {**settings, "function": given.get("function"), "measures": [measure.name for measure in measures]}
        return account(command, self.model.about(), options)


def open_contrasting(items: Sequence[Item], settings: ContrastSettings, model: Model = "demo-opt") -> Contrasting:
    """Return tokenised items with the measures that score them.

    ValueError for a model that can't be read, and for items that can't be scored.
    """
    decomposed, tokenizer = open_model(model, **settings.placement)
    requests = [(measure, request.resolved(decomposed, tokenizer)) for measure, request in settings.requests]
    multi_token, sources = settings.multi_token, settings.sources
    contrasts = open_contrasts(items, decomposed, tokenizer, multi_token, bool(settings.bos), sources)
    contraster = Contraster(requests, multi_token, settings.reduction, has_groups(sources))
    return Contrasting(decomposed, tokenizer, contrasts, contraster)


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
    own: dict[str, Any] = {"count": count, "removals": removals, "drop_in": drop_in, "draws": draws, "seed": seed}
    checked = faithfulness_settings(articles, measures, **own, batch_size=batch_size, **settings)
    scoring = open_scoring(checked, model)
    request = scoring.scorer.request
    replacements = {name: token_id(name, scoring.tokenizer, ("mask",)) for name in removals}
    sources = scoring.scorer.leading.sources
    chosen = choose_targets(scoring.windows, request.decomposition_length, count, seed, sources)
    perturbation = Perturbation(replacements, find_function(drop_in), draws, seed)
    curves = FaithfulnessRows(scoring.scorer.measures, request, perturbation, sources)
    work = faithfulness_work(chosen, curves, batch_size, scoring.model.max_length())
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
    own: dict[str, Any] = {"seed": seed, "batch_size": batch_size}
    scoring = open_scoring(agreement_settings(articles, measures, **own, **settings), model)
    compute = AgreementRows(scoring.scorer.measures, scoring.scorer.request, scoring.scorer.leading.sources).block
    summary = MeanTable(agreement.COLUMNS, seed, agreement.refuse_none)
    work = replace(scoring.work(batch_size), compute=compute, computed=agreement.COMPUTED, summary=summary)
    made = scoring.about("evaluate agreement", {**settings, **own})
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
    own: dict[str, Any] = {"limit": limit, "seed": seed, "batch_size": batch_size}
    checked = alignment_settings(items, measures, fields=fields, **own, **settings)
    read = list(chain.from_iterable(read_items(Path(path), fields)[:limit] for path in items))
    length = settings.get("decomposition_length")
    opened = with_evidence(open_contrasting(read, checked, model), length)
    aligned = AlignmentRows(opened.contraster.requests, length)
    work = alignment_work(opened.contrasts, aligned, batch_size, seed)
    made = opened.about("evaluate alignment", {**settings, "items": items, **own})
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
        settings = all_settings(ContextSettings, given, self.model, self.scorer.request)
        options = {**settings, "measures": [measure.name for measure in self.scorer.measures]}
        return {**account(command, self.model.about(), options), **self.contents()}


def open_contexts(items: Sequence[ContextItem], settings: ContextSettings, model: Model = "demo-opt") -> ContextScoring:
    """Return contexts and answers as tokens, with the measures that score them.

    ValueError for a model that can't be read, and for items that can't be scored.
    """
    decomposed, tokenizer = open_model(model, **settings.placement)
    write, bos, positions = partial(written, decomposed, settings.max_new_tokens), settings.bos, decomposed.max_length()
    contexts = [tokenise_context(item, tokenizer, decomposed.config, positions, bool(bos), write) for item in items]
    request = settings.request.resolved(decomposed, tokenizer)
    scorer = ContextScorer(settings.measures, request, settings.refine, settings.refine_top)
    return ContextScoring(decomposed, tokenizer, contexts, scorer)


def written(model: DecomposedModel, count: int, ids: Int[Tensor, " T"]) -> Int[Tensor, " new"]:
    """Return the tokens that a model writes after others, at most `count`, without the one that ends the text."""
    room = min(count, model.max_length() - len(ids))
    new = model.write(ids.to(model.device), room)
    ends = model.config.eos_token_id
    return new[:-1] if len(new) and int(new[-1]) in (ends if isinstance(ends, list) else [ends]) else new


def open_context_evaluation(
    items: Sequence[ContextItem], model: Model, measures: str | Sequence[str], *, seed: int, **settings: Any
) -> Evaluating[Any]:
    """Return the evaluation of segment rankings on items; the settings are those of `decomp.evaluate_context`."""
    chosen, checked = context_evaluation_settings(items, measures, seed=seed, **settings)
    opened = open_contexts(items, checked, model)
    judge = ContextRows(chosen, opened.scorer.request, opened.tokenizer, bool(checked.bos), seed)
    summary = MeanTable(contexts.COLUMNS, seed, dict)
    work = replace(opened.work(), compute=judge.block, computed=contexts.COMPUTED, summary=summary)
    made = opened.about("evaluate context", {**settings, "seed": seed})
    made["options"]["measures"] = [measure.name for measure in chosen]
    return Evaluating(opened.model, work, opened.contents(), made)
