"""The functions of a notebook: text, a model's name and measures in, a table out, each in one call."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from tqdm import tqdm

from decomp.core.decomposition import Decomposition
from decomp.corpus.article import Article
from decomp.corpus.articles import InputFormat, articles_of_rows, read_articles
from decomp.corpus.context_items import read_context_items
from decomp.corpus.contrast_items import Item, read_items
from decomp.corpus.source_kinds import check_segments, check_sources
from decomp.corpus.sources import Sources, check_fit
from decomp.io.records import Fields
from decomp.jobs import (
    Evaluating,
    Model,
    Scoring,
    open_agreement,
    open_alignment,
    open_context_evaluation,
    open_contexts,
    open_contrasting,
    open_faithfulness,
    open_model,
    open_scoring,
    open_windows,
)
from decomp.measures.windows import partition_of
from decomp.models.loading import load_model
from decomp.report.page.document import Page, check_page, write_page
from decomp.report.page.opening import (
    decompositions_page,
    open_page,
    table_page,
    underlined,
    with_gap,
    with_predictions,
)
from decomp.report.page.predictions import likely_tokens
from decomp.runs.stored import with_text_spans
from decomp.runs.tables import open_table_or_run
from decomp.settings import check_least, context_settings, contrast_settings, scoring_settings
from decomp.tables.table import Table

__all__ = [
    "agreement",
    "alignment",
    "context",
    "contrast",
    "decompose",
    "evaluate_context",
    "faithfulness",
    "load_model",
    "load_table",
    "score",
    "write_report",
]

T = TypeVar("T")
Source = str | Path | Sequence[str] | Iterable[Mapping[str, Any]]
"""A source of texts: one text, a file or folder, several texts, or rows of a data set."""
FILE_SUFFIXES = (".txt", ".sentitems", ".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ".gz")
"""Suffixes at which a text without spaces is taken for a file's name."""
OF_FILES = {"text": None, "input_format": None}
"""The settings with which `decomp score` reads a file when none are given."""
MOST_CHECKED = 128
"""The most tokens of a text whose completeness gap is computed for its page."""
BAR_DELAY = 1
"""The number of seconds after which a progress bar is shown."""


def score(
    source: Source,
    model: Model = "demo-opt",
    measures: str | Sequence[str] = "delta_lp",
    *,
    batch_size: int | None = None,
    text_field: str = "text",
    id_field: str = "id",
    progress: bool | None = None,
    **settings: Any,
) -> Table:
    """Return the scores of every context token for every word of a text: by default ΔLP, in bits.

    `source` is a text, several texts, a `Path` to a file or folder as `decomp score` reads it, or rows: a data set of
    the library `datasets`, or a list of dicts, with the text (or a list of token ids) in the field `text_field`, and
    if you like an id in `id_field`. `model` is a name (a hub id, a folder, a demo model), or the pair (model,
    tokenizer) that `load_model` returns, so that a notebook loads it once. Texts longer than the model's positions are
    cut into overlapping windows; `batch_size` of these are computed together, by default as many as have one full
    window's tokens. `progress` shows a bar (by default on a terminal and in a notebook).

    The settings are the options of `decomp score`: `unit` ("token", "word"), `sources` ("token", "word", "sentence",
    "line", "paragraph", "segment", or for a text of one window a label for each of its tokens, the beginning of
    sequence included: tokens of one label are one source), `words` (a Path), `span`, `targets` ("last", a position,
    "10:14" for tokens that are predicted together, or a list of these), `strongest` (for these targets, ΔLP of so many
    sources, found by a first-order screen, and of all others together), `entropy`, `corrected`, `stride`, `bos`,
    `max_new_tokens`, `sample`, `temperature`, `seed`. Settings of the measures are `function`,
    `decomposition_length`, `activation_rule`, `extra`, `memory`, `steps`, `baseline`, `layers`, `replacement` and so
    on; `top`, `min_abs`, `min_distance` and `max_distance` choose the sources that keep rows of their own (the others
    are summed in rows `<dropped>`), and `digits` rounds. A model given by name takes `dtype`, `device`, `revision`.

    The table has one row per predicted token, source and measure. ValueError for an input that can't be read or
    is empty, an unknown measure or setting, settings that don't go together, and a model that can't be loaded.

    >>> import decomp
    >>> table = decomp.score("The cat sat.", "demo-opt", measures=("delta_lp", "input_x_gradient"))
    >>> table.measures(), len(table)
    (['delta_lp', 'input_x_gradient'], 20)
    """
    check_least(batch_size=batch_size)
    scoring = open_scoring(scoring_settings(articles_of(source, text_field, id_field), measures, **settings), model)
    each = with_progress(scoring.blocks_by_window(batch_size), len(scoring.windows), "window", progress)
    made = scoring.about(
        "score", {**OF_FILES, "text_field": text_field, "id_field": id_field, "batch_size": batch_size, **settings}
    )
    return Table.from_blocks(scoring.columns, each, made)


def contrast(
    prompt: str | Path,
    target: str | None = None,
    foil: str | None = None,
    model: Model = "demo-opt",
    measures: str | Sequence[str] = (),
    *,
    limit: int | None = None,
    fields: Fields = None,
    batch_size: int = 16,
    progress: bool | None = None,
    **settings: Any,
) -> Table:
    """Return the scores of every token of a prompt for preferring a target to a foil (Yin & Neubig 2022).

    Instead of prompt, target and foil, a `Path` gives the items of a table, as `decomp contrast` reads it; `limit`
    takes only the first of these, and `fields` maps names of columns used here to the table's own, such as
    `{"prompt": "sentence"}`. `measures` are by default those that explain a contrast. The settings are
    `multi_token` ("first": the first token that differs; "sum": teacher forcing over all) and, as for `score`,
    `sources` of the prompt, `bos`, the settings of the measures, of the sources that keep rows, and of the model.
    `model` and `progress` are those of `score`.

    The table has, in front, the item, its phenomenon, the foil, log2 P(target) − log2 P(foil) in bits, and whether
    the model prefers the target. ValueError as for `score`, and for items that can't be scored.

    >>> import decomp
    >>> table = decomp.contrast("The keys to the cabinet", "were", "was", "demo-opt", measures="delta_lp")
    >>> table.measures()
    ['delta_lp:contrast_log2_prob']
    >>> list(table["source_token"][:4])
    ['</s>', 'The', 'Ġkey', 's']
    """
    check_least(limit=limit, batch_size=batch_size)
    checked = contrast_settings(measures, **settings)
    contrasting = open_contrasting(items_of(prompt, target, foil, limit, fields), checked, model)
    each = contrasting.rows_by_item(batch_size)
    items = with_progress(each, len(contrasting.contrasts), "item", progress)
    made = contrasting.about("contrast", {"limit": limit, "batch_size": batch_size, **settings})
    return Table.from_blocks(contrasting.contraster.columns, (item.rows for item in items), made)


def context(
    items: Path | Sequence[Mapping[str, Any]],
    model: Model = "demo-opt",
    measures: str | Sequence[str] = "delta_lp",
    *,
    limit: int | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Table:
    """Return the scores of every segment of a context for the answer that follows it.

    `items` are the `Path` of a JSONL file or a list of mappings like its lines: `segments` (each with `text`, and if
    you like `name`, and `ranked`: False for a question), or `messages` (`role`, `content`) that the tokenizer's
    chat template writes, or `examples` (`input`, `output`) with a `question`; and an `answer`, which the model writes
    where it is left out (at most `max_new_tokens`, the likeliest each time).

    `refine` divides the `refine_top` strongest segments into sentences (1), and the strongest of these into words (2),
    exactly. The settings are those of measures and models, as for `score`, and `bos`.

    The table has a row for each part of the answer (the whole, its sentences), segment and measure: ΔLP of all its
    tokens together, in bits, its rank, and the log2 probability with and without it. ValueError as for `score`, for
    items that can't be read or scored, and for a chat template that does not tell where messages stand.

    >>> import decomp
    >>> said = [{"name": "cat", "text": "The cat sat on the mat."}, {"name": "key", "text": "The key was lost."}]
    >>> table = decomp.context([{"segments": said, "answer": "Then the cat"}], "demo-opt")
    >>> list(table["segment"])
    ['</s>', 'cat', '<template>', 'key', '<own>']
    """
    check_least(limit=limit)
    read = read_context_items(items)[:limit]
    opened = open_contexts(read, context_settings(measures, **settings), model)
    work = opened.work()
    blocks = with_progress(work.blocks(opened.model), len(work.items), "item", progress)
    made = opened.about("context", {"limit": limit, **settings})
    return Table.from_blocks(work.columns, blocks, made)


def decompose(
    text: str,
    model: Model = "demo-opt",
    *,
    sources: Sources = "token",
    decomposition_length: int | None = None,
    bos: bool = True,
    dtype: str | None = None,
    device: str | None = None,
    revision: str | None = None,
    **options: Any,
) -> Decomposition:
    """Return the exact decomposition of a text's final hidden states, with the text's tokens (Oh & Schuler 2023).

    `sources`: single tokens, the name of larger ones ("word", "sentence", "line", "paragraph"), or a label for each
    token, the beginning of sequence included: tokens of one label are one source.
    `decomposition_length`: the most recent sources kept per target, by default all. `bos` begins the text with the
    beginning-of-sequence token. The options are those of the model's own `decompose`: `activation_rule`,
    `output_layers`, `memory`. ValueError for a text that is empty or longer than the model's positions.

    >>> import decomp
    >>> result = decomp.decompose("The cat sat.", "demo-opt")
    >>> result.tokens
    ('</s>', 'The', 'Ġcat', 'Ġsat', '.')
    >>> result.contributions(3).shape  # (sources, hidden)
    torch.Size([4, 192])
    >>> sentences = decomp.decompose("The cat sat. It purred.", "demo-opt", sources="sentence")
    >>> sentences.partition.names
    ('</s>', 'The cat sat.', 'It purred.')
    """
    articles = articles_of([text] if isinstance(text, str) else text)
    check_sources(sources)
    check_segments(sources, articles)
    decomposed, tokenizer = open_model(model, dtype, device, revision)
    windows = open_windows(articles, decomposed, tokenizer, None, bos)
    if len(windows) != 1:
        raise ValueError(
            f"decompose takes one text of at most {decomposed.max_length()} tokens, this is {len(windows)} windows: "
            "shorten it, or store those of a corpus with decomp decompose"
        )
    check_fit(sources, windows)
    ids, partition = windows[0].ids.to(decomposed.device), partition_of(windows[0], sources)
    result = decomposed.decompose(ids[None], decomposition_length=decomposition_length, sources=partition, **options)
    return with_text_spans(result, windows[0])


def faithfulness(
    source: Source,
    model: Model = "demo-opt",
    measures: str | Sequence[str] = "delta_lp",
    *,
    count: int | None = None,
    removals: Sequence[str] = ("mask", "unk"),
    drop_in: str = "log2_prob",
    draws: int = 5,
    seed: int = 0,
    batch_size: int | None = None,
    text_field: str = "text",
    id_field: str = "id",
    progress: bool | None = None,
    **settings: Any,
) -> Table:
    """Return how much predictions lose without the sources that each measure ranks first (DeYoung et al. 2020).

    `count` predicted tokens are drawn at random, by default all are taken. `removals` say what takes the place of
    removed sources (mask, pad, unk, or a token), `drop_in` which number is lost (log2_prob in bits, or prob),
    `draws` how many random rankings there are. The table has per measure, removal, metric (comprehensiveness:
    higher is better; sufficiency: lower is better) and fraction of sources removed the mean loss with its 95 %
    interval; fraction `aopc` is the mean of all. The other parameters, and ValueError, are those of `score`.

    >>> import decomp
    >>> table = decomp.faithfulness("The cat sat on the mat.", measures="attention", removals=["mask"], draws=2)
    >>> list(table.select(fraction="aopc")["metric"])
    ['comprehensiveness', 'sufficiency', 'comprehensiveness', 'sufficiency']
    """
    own: dict[str, Any] = {"count": count, "removals": removals, "drop_in": drop_in, "draws": draws, "seed": seed}
    opened = open_faithfulness(
        articles_of(source, text_field, id_field), model, measures, **own, batch_size=batch_size, **settings
    )
    return evaluated(opened, progress)


def agreement(
    source: Source,
    model: Model = "demo-opt",
    measures: str | Sequence[str] = ("delta_lp", "attention", "gradient_norm", "input_x_gradient"),
    *,
    seed: int = 0,
    batch_size: int | None = None,
    text_field: str = "text",
    id_field: str = "id",
    progress: bool | None = None,
    **settings: Any,
) -> Table:
    """Return how alike measures rank the sources of predictions, for every two of them (Oh & Schuler 2023, section 5).

    The table has Spearman's and Kendall's rank correlation (tau-b), averaged over predicted tokens, with 95 %
    bootstrap intervals (of `seed`) over these. The other parameters are those of `score`. ValueError as for `score`,
    without scipy, and where no predicted token has two sources with unequal scores.

    >>> import decomp
    >>> table = decomp.agreement("The cat sat on the mat.", measures=("delta_lp", "decomposed_logit"))
    >>> list(table["metric"])
    ['spearman', 'kendall']
    """
    own: dict[str, Any] = {"seed": seed, "batch_size": batch_size}
    return evaluated(
        open_agreement(articles_of(source, text_field, id_field), model, measures, **own, **settings), progress
    )


def alignment(
    items: Path | Sequence[Path],
    model: Model = "demo-opt",
    measures: str | Sequence[str] = (),
    *,
    limit: int | None = None,
    fields: Fields = None,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool | None = None,
    **settings: Any,
) -> Table:
    """Return how well measures single out the known evidence of contrast items (Yin & Neubig 2022).

    `items` are tables as `contrast` reads them, with a column `evidence` or in BLiMP's form. The table has per
    phenomenon and measure the mean dot product with the evidence, the probes needed and the reciprocal rank, with
    95 % bootstrap intervals (of `seed`) over items; beside them those of scores in random order (`<random>`), and
    how often the model prefers the target (`<model>`). The other parameters are those of `contrast`. ValueError as for
    `contrast`, and where no item has evidence in its prompt.
    """
    paths = [items] if isinstance(items, str | Path) else items
    own: dict[str, Any] = {"limit": limit, "fields": fields, "seed": seed, "batch_size": batch_size}
    return evaluated(open_alignment([*map(Path, paths)], model, measures, **own, **settings), progress)


def evaluate_context(
    items: Path | Sequence[Mapping[str, Any]],
    model: Model = "demo-opt",
    measures: str | Sequence[str] = ("delta_lp", "first_order", "input_x_gradient", "attention"),
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **settings: Any,
) -> Table:
    """Return how well measures rank segments by how much answers lose without them (Cohen-Wang et al. 2024).

    `items` are those of `context`; their `evidence`, where given, names the segment that is known to decide. The table
    has per removal (`removed`: the text without a segment; `masked`: its keys hidden) and measure the mean of
    `spearman` (rank correlation with what leaving each segment out takes away), `top_1_drop` and `top_3_drop` (bits
    lost without the highest together) and `reciprocal_rank` of the evidence, with 95 % bootstrap intervals (of `seed`)
    over items; beside the measures `<leave_one_out>` itself, and `<random>` order. The other parameters are those of
    `context`. ValueError as for `context`, and for measures that can't score groups of tokens.
    """
    check_least(limit=limit)
    read = read_context_items(items)[:limit]
    return evaluated(open_context_evaluation(read, model, measures, seed=seed, **settings), progress)


def evaluated(opened: Evaluating[Any], progress: bool | None) -> Table:
    """Return the table of an evaluation, computed with a progress bar."""
    work = opened.work
    with bar_over(len(work.items), work.what, progress) as bar:
        blocks = work.blocks(opened.model, lambda batch: bar.update(len(batch)))
        return Table.from_blocks(work.columns, work.table(blocks), opened.made)


def write_report(
    source: Table | Decomposition | Path | Sequence[Path] | str,
    path: str | Path,
    *,
    title: str | None = None,
    articles: Sequence[int] = (),
    items: Path | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path:
    """Write one HTML page, for a browser without network, that shows what each word's prediction rests on.

    `source` is a table, a decomposition, the `Path` of a file that holds one or of a run's folder (or several), or
    a text, which is scored first: `settings` are then those of `score`, `model` and `measures` among them, and the
    page also has the model's likeliest tokens. Tables of layers, neurons and edges, given by their paths, get a tab
    each. `articles` are the articles of a long table that are shown; `items` is the file of contrast items whose
    evidence is underlined. Returns the page's path.

    ValueError for a source that can't be read or has more tokens than a page can show (20,000), and for a file that
    exists, unless `overwrite`.

    >>> import decomp
    >>> page = decomp.write_report("The cat sat.", "cat.html", model="demo-opt")
    >>> page.stat().st_size < 100_000
    True
    """
    path = Path(path)
    sources = paths_of(source)
    check_page(path, sources, overwrite)
    if settings and not isinstance(source, str):
        raise ValueError(f"{', '.join(settings)} are settings for a text: only a text is scored for the report")
    if sources:
        page = open_page(sources, title, articles)
    elif isinstance(source, str):
        page = text_page(source, title, **settings)
    elif isinstance(source, Table):
        page = table_page(source, title or "scores")
    elif isinstance(source, Decomposition):
        page = decompositions_page([source], ["the decomposition"], title or "ΔLP")
    else:
        raise ValueError(f"expected a text, a table, a decomposition or a Path, not {type(source).__name__}")
    if items is not None:
        page = underlined(page, read_items(items))
    write_page(page, path, overwrite)
    return path


def paths_of(source: Any) -> list[Path]:
    """Return the paths in a source that is a `Path` or several; none for a source of another kind."""
    sources = source if isinstance(source, list | tuple) else [source]
    return list(sources) if all(isinstance(each, Path) for each in sources) else []


def text_page(
    text: str,
    title: str | None,
    model: Model = "demo-opt",
    measures: str | Sequence[str] = "delta_lp",
    progress: bool | None = None,
    **settings: Any,
) -> Page:
    """Return the page of a scored text, with the model's likeliest tokens at each position."""
    scoring = open_scoring(scoring_settings(articles_of(text), measures, **settings), model)
    each = with_progress(scoring.blocks_by_window(), len(scoring.windows), "window", progress)
    made = scoring.about("report", {**OF_FILES, **settings})
    page = table_page(Table.from_blocks(scoring.columns, each, made), title or shortened(text))
    if settings.get("unit", "token") != "token" or settings.get("span", 1) != 1:
        return page
    page = with_predictions(page, likely_tokens(scoring.model, scoring.windows, scoring.tokenizer))
    return with_gap(page, completeness_gap(scoring)) if len(scoring.windows[0].ids) <= MOST_CHECKED else page


def completeness_gap(scoring: Scoring) -> float:
    """Return the completeness gap of a short text: how far contributions and bias are from the hidden states."""
    request, ids = scoring.scorer.request, scoring.windows[0].ids.to(scoring.model.device)
    rule, gate_rule = request.activation_rule, request.gate_rule
    result = scoring.model.decompose(ids[None], activation_rule=rule, gate_rule=gate_rule, memory=request.memory)
    return result.completeness_gap()


def shortened(text: str, most: int = 48) -> str:
    """Return the beginning of a text, on one line, of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most].rsplit(' ', 1)[0]} …"


def load_table(path: str | Path) -> Table:
    """Return a long table from a file (TSV, CSV, JSONL or Parquet, by suffix; .gz is unpacked) or a run's folder.

    Its `about` is the account of how it was made, where there is one. ValueError for a file that is missing or
    damaged, no long table, or changed since it was written, and for a run that is not complete.
    """
    file = open_table_or_run(Path(path))
    return Table.from_blocks(file.columns, file.blocks(), file.made())


def articles_of(
    source: Source | Sequence[Article], text_field: str = "text", id_field: str = "id"
) -> Sequence[Article]:
    """Return the articles of a text, of several texts, of a file, or of rows. ValueError where there is no text.

    A text that is the name of a file is refused: a list of one text scores it as it stands.
    """
    form = InputFormat(None, text_field, id_field)
    if isinstance(source, Path):
        return read_articles(source, form)
    if isinstance(source, Mapping):
        raise ValueError(f"expected one data set, not several: give one of {', '.join(map(str, source))}")
    source = records_of_frame(source)
    if are_rows(source):
        return articles_of_rows(source, form)
    if form != InputFormat():
        raise ValueError("a text has no columns: leave out text_field and id_field, or give rows or a Path")
    if isinstance(source, str):
        refuse_file_name(source)
    texts = [source] if isinstance(source, str) else source
    if not isinstance(texts, Sequence) or not all(isinstance(text, str | Article) for text in texts):
        raise ValueError(f"expected a text, several texts, rows with fields, or a Path, not {type(source).__name__}")
    articles = [Article(text) if isinstance(text, str) else text for text in texts]
    if not any(article.text.strip() for article in articles):
        raise ValueError("the text is empty: give at least one word")
    return articles


def records_of_frame(source: Any) -> Any:
    """Return the rows of a data frame (of pandas or polars) or an Arrow table, and anything else as it is."""
    for rows in ("to_dicts", "to_pylist"):
        if hasattr(source, rows):
            return getattr(source, rows)()
    # A data set has a function of that name too, which gives columns.
    return source.to_dict("records") if hasattr(source, "to_dict") and not are_rows(source) else source


def are_rows(source: Any) -> TypeGuard[Iterable[Mapping[str, Any]]]:
    """Return whether a source is a data set or a list of dicts."""
    if hasattr(source, "column_names"):
        return True
    return isinstance(source, Sequence) and len(source) > 0 and all(isinstance(row, Mapping) for row in source)


def refuse_file_name(text: str) -> None:
    """Raise ValueError for a text that is the name of a file, or looks like one."""
    is_name = "\n" not in text and len(text) < 256 and text.strip() != "" and os.path.exists(text)
    if is_name or (text.lower().endswith(FILE_SUFFIXES) and len(text.split()) == 1):
        raise ValueError(
            f"{text!r} is a file's name: give Path({text!r}) to score what the file holds, or [{text!r}] to score "
            "these words"
        )


def items_of(
    prompt: str | Path, target: str | None, foil: str | None, limit: int | None = None, fields: Fields = None
) -> list[Item]:
    """Return the items of a table, or the one item given as texts. ValueError where one of its texts is missing."""
    if isinstance(prompt, Path):
        if target is not None or foil is not None:
            raise ValueError(f"target and foil stand in the table {prompt}: leave them out")
        return read_items(prompt, fields)[:limit]
    if fields:
        raise ValueError("--field (fields=) names columns of a table of items: give that, or leave it out")
    if not (isinstance(prompt, str) and isinstance(target, str) and isinstance(foil, str)):
        raise ValueError("a contrast needs the texts prompt, target and foil, or the Path of a table of items")
    if target == foil:
        raise ValueError(f"target and foil are both {target!r}: they must differ")
    return [Item("the contrast", 0, "0", "", prompt, target, foil)]


def with_progress(items: Iterable[T], total: int, unit: str, progress: bool | None) -> Iterator[T]:
    """Yield the items, and advance a progress bar."""
    with bar_over(total, unit, progress) as bar:
        for item in items:
            yield item
            bar.update()


def bar_over(total: int, unit: str, progress: bool | None) -> Any:
    """Return a bar on stderr, shown if `progress` says so, or by default on a terminal and in a notebook."""
    shown = someone_looks_on() if progress is None else progress
    return tqdm(total=total, unit=unit, delay=BAR_DELAY, disable=not shown)


def someone_looks_on() -> bool:
    """Return whether a person sees stderr: on a terminal, or in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return sys.stderr.isatty() or (shell is not None and "IPKernelApp" in shell.config)
