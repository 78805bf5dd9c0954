"""`decomp deltalp`: stored decompositions in, ΔLP out."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decomp.cli import options

if TYPE_CHECKING:
    from decomp.core.decomposition import Decomposition
    from decomp.corpus.cutting import Window


@click.command("deltalp")
@click.argument("identifier")
@options.model
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("output"),
    show_default=True,
    help="Where the stored files are.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: standard output]")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["text", "tsv", "csv", "jsonl"]),
    default="text",
    show_default=True,
    help="text: the original research code's; the others: the long table.",
)
@options.overwrite
@options.quiet
def command(
    identifier: str, model: str, output_dir: Path, output: Path | None, format_name: str, overwrite: bool, quiet: bool
) -> None:
    """ΔLP of every stored source, from the files that `decomp decompose` wrote.

    IDENTIFIER is {corpus}_{model}_{n}, or {corpus}_{model} for all windows of a run. MODEL gives the
    tokenizer, for files without token strings (--format pt of decompose).
    """
    from decomp.cli.common import destination, progress
    from decomp.io.files import check_outputs
    from decomp.measures.result import Scores, finite
    from decomp.tables import columns as tables
    from decomp.tables.front import PLACE_COLUMNS
    from decomp.tables.original_text import lines

    paths = find(identifier, output_dir)
    check_outputs([output], [*paths.values(), model], overwrite)
    with destination(output) as file, progress(len(paths), quiet, "window") as bar:
        columns = (*PLACE_COLUMNS, *tables.COLUMNS)
        write = None if format_name == "text" else tables.FORMATS[format_name](file, columns)
        for number, (name, path) in enumerate(paths.items()):
            result, window, tokens = open_stored(path, model, number)
            matrix = result.delta_lp(window.targets.start)
            length, log2_prob = result.decomposition_length, result.next_log2_prob()
            scores = finite(Scores("delta_lp", window.targets, length, log2_prob, matrix, {}), name)
            if write is None:
                file.writelines(f"{line}\n" for line in lines(name, scores, tokens))
            else:
                places = stored_places(result, tokens)
                write(tables.rows(scores, window, tokens, places, [(word,) for word, *_ in places]))
            bar.update()


def find(identifier: str, folder: Path) -> dict[str, Path]:
    """The stored file of that identifier, or all windows of that run, in order."""
    from decomp.core.storage import numbered, stored_identifiers

    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: give the one that decomp decompose wrote, with --output-dir")
    stored = stored_identifiers(folder)
    if identifier in stored:
        return {identifier: stored[identifier]}
    if windows := numbered(identifier, stored):
        return {name: stored[name] for _, name in sorted(windows.items())}
    near = difflib.get_close_matches(identifier, stored, n=5, cutoff=0.3)
    known = f"near ones are {', '.join(near)}" if near else f"the folder has {len(stored)} decompositions"
    raise ValueError(f"no decomposition {identifier!r} in {folder}: {known}")


def open_stored(path: Path, model: str, number: int) -> "tuple[Decomposition, Window, tuple[str, ...]]":
    """A stored decomposition, its window, and its tokens; those of `.pt` files by the model's tokenizer."""
    from decomp.core.decomposition import load
    from decomp.core.storage import pt_unembedding_path, unembedding_path
    from decomp.corpus.cutting import Window
    from decomp.models.base import model_label

    label = model_label(model)
    if path.suffix == ".pt":
        result = load(path, pt_unembedding_path(path.parent, label))
        return result, *read_tokens(path, result, model, number)
    result = load(path)
    if result.about.get("model", label) != label:
        raise ValueError(f"{path} was made with the model {result.about['model']}, not with {label}")
    if result.unembedding is None:
        raise ValueError(f"{unembedding_path(path.parent, label)} is missing, which ΔLP needs: decompose again")
    window = json.loads(result.about.get("window", "null"))
    if window is None or result.tokens is None:
        return result, *read_tokens(path, result, model, number)
    return result, Window(**window), result.tokens


def stored_places(result: "Decomposition", tokens: Sequence[str]) -> list[tuple[int | None, ...]]:
    """Word and characters of each token, empty in files that do not say."""
    places = json.loads(result.about.get("places", "null")) or [[None] * 3] * len(tokens)
    return [tuple(place) for place in places]


def read_tokens(path: Path, result: "Decomposition", model: str, number: int) -> "tuple[Window, tuple[str, ...]]":
    """Token strings from the model's tokenizer, and a window of which nothing more is known."""
    from decomp.corpus.cutting import Window
    from decomp.models.loading import load_config, load_tokenizer

    tokenizer, ids = load_tokenizer(model), result.input_ids
    if int(ids.max()) >= len(tokenizer):
        raise ValueError(f"{path} has token {int(ids.max())}, {model} knows {len(tokenizer)}: it is of another model")
    bos = {tokenizer.bos_token_id, getattr(load_config(model), "bos_token_id", None)}
    has_bos = int(ids[0]) in bos
    window = Window(number, 0, 0, len(ids) - has_bos, 0, has_bos)
    return window, tuple(tokenizer.convert_ids_to_tokens(ids.tolist()))
