"""Scores of decoder-only models to and from the JSON of inseq (Sarti et al. 2023; versions 0.6 and 0.7).

A file holds one object of inseq's, with the scores of its sequences (token × predicted token) as safetensors in base64.
Token ids, which inseq keeps and a table lacks, are −1 in files written here.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load, save

from decomp.io.files import check_outputs, write_whole
from decomp.io.names import suggested
from decomp.tables.blocks import Row
from decomp.tables.columns import COLUMNS, refuse_groups
from decomp.tables.table import Table

MODULE = "inseq.data.attribution"
OUTPUT, SEQUENCE = "FeatureAttributionOutput", "CoarseFeatureAttributionSequenceOutput"
TOKEN = ["inseq.utils.typing", "TokenWithId"]
UNKNOWN_ID = -1
LOG2_PROB = "log2_prob"
"""The step score of files written here that keeps very small probabilities, which are 0 in single precision."""
OWN = "decomp"
"""The entry of `info` in which files written here keep what a table has and inseq lacks."""


def write_inseq(table: Table, path: str | Path, measure: str | None = None, *, overwrite: bool = False) -> None:
    """Write one measure's scores, and the probabilities, as a file that `inseq.FeatureAttributionOutput.load` reads.

    Each article is a sequence; rows that are not tokens (`<bias>`) are left out, and where the table has no score there
    is NaN. ValueError for a measure that the table lacks, an article whose predicted tokens have gaps, and a file that
    exists, unless `overwrite`.
    """
    refuse_groups(table.columns, "files of inseq have scores of single tokens or words")
    path, name = Path(path), measure or table.only_measure()
    check_outputs([path], overwrite=overwrite)
    chosen = table.select(measure=name)
    if not len(chosen):
        raise ValueError(f"the table has no measure {name!r}: {suggested(name, table.measures())}")
    articles = list(dict.fromkeys(chosen["article"].tolist()))
    parts = [chosen.select(article=article) for article in articles]
    info = {
        "attribution_method": name,
        "model_name": table.about.get("model", {}).get("model"),
        "input_texts": [],
        "generated_texts": [],
        OWN: {"articles": articles, "bos": [bool((source_positions(part) == -1).any()) for part in parts]},
    }
    content = instance(OUTPUT, sequence_attributions=[sequence(part) for part in parts], info=info)
    content["attributes"]["step_attributions"] = None
    write_whole(path, json.dumps(content, ensure_ascii=True, indent=1).encode() + b"\n")


def instance(name: str, **attributes: Any) -> dict[str, Any]:
    """Return an object of one of inseq's classes in the form of its files."""
    return {"__instance_type__": [MODULE, name], "attributes": attributes}


def sequence(rows: Table) -> dict[str, Any]:
    """Return one article's scores as a sequence in inseq's form. ValueError where its predicted tokens have gaps."""
    positions = np.unique(rows["position"])
    sources = source_positions(rows)
    places = np.unique(np.concatenate([positions, sources[sources > -2]]))
    start, count = len(places) - len(positions), len(positions)
    if not np.array_equal(places[start:], positions):
        raise ValueError(f"article {rows['article'][0]} has gaps between its predicted tokens: inseq's files have none")
    scores = np.full((len(places), count), np.nan, np.float32)
    kept = sources > -2
    target = np.searchsorted(positions, rows["position"])
    scores[np.searchsorted(places, sources[kept]), target[kept]] = rows["score"][kept]
    log2_prob = np.zeros(count, np.float32)
    log2_prob[target] = rows["log2_prob"]
    tokens = tokens_at(rows, places, sources)
    return instance(
        SEQUENCE,
        source=tokens[:start],
        target=tokens,
        source_attributions=None,
        target_attributions=packed(scores),
        step_scores={"probability": packed(np.exp2(log2_prob)), LOG2_PROB: packed(log2_prob)},
        sequence_scores=None,
        attr_pos_start=start,
        attr_pos_end=len(places),
    )


def source_positions(rows: Table) -> Any:
    """Return the position of each row's source, −2 for rows that are not tokens."""
    return np.ma.filled(rows["source_position"], -2)


def tokens_at(rows: Table, places: Any, sources: Any) -> list[dict[str, Any]]:
    """Return the tokens at these places in inseq's form."""
    known = dict(zip(sources.tolist(), rows["source_token"], strict=True))
    known |= dict(zip(rows["position"].tolist(), rows["token"], strict=True))
    named = [{"token": known[place], "id": UNKNOWN_ID} for place in places.tolist()]
    return [{"__instance_type__": TOKEN, "attributes": attributes} for attributes in named]


def packed(values: Float[np.ndarray, "..."]) -> str:
    """Return an array as inseq's files hold it: safetensors in base64."""
    return base64.b64encode(save({"attribution": values})).decode()


def load_inseq(path: str | Path) -> Table:
    """Return the long table of a file that inseq wrote (`.gz` is unpacked) for a decoder-only model.

    Scores must be one number per pair of tokens (`out.aggregate()` before it is saved), and the step score
    `probability` must be there. ValueError otherwise, and for a file of another kind.
    """
    path = Path(path)
    output = attributes_of(read_json(path), OUTPUT, path)
    info = output.get("info") or {}
    sequences = [attributes_of(each, "SequenceOutput", path) for each in output.get("sequence_attributions", ())]
    own = info.get(OWN) or {"articles": list(range(len(sequences))), "bos": [False] * len(sequences)}
    measure = str(info.get("attribution_method") or "inseq")
    rows: list[Row] = []
    for article, has_bos, each in zip(own["articles"], own["bos"], sequences, strict=True):
        rows += sequence_rows(each, article, has_bos, measure, path)
    about = {"command": "inseq", "model": {"model": info.get("model_name")}, "options": {"measures": [measure]}}
    return Table.from_rows(COLUMNS, rows, about)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. ValueError where it can't be read."""
    try:
        return json.loads((gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: expected a file that inseq wrote") from error


def attributes_of(value: Any, name: str, path: Path) -> Mapping[str, Any]:
    """Return the attributes of an object of one of inseq's classes. ValueError for an object of another class."""
    kind = value.get("__instance_type__") if isinstance(value, dict) else None
    if not (isinstance(kind, list) and str(kind[-1]).endswith(name) and isinstance(value.get("attributes"), dict)):
        raise ValueError(f"{path} holds no {name} of inseq: save it there with use_primitives=False")
    return value["attributes"]


def sequence_rows(found: Mapping[str, Any], article: int, has_bos: bool, measure: str, path: Path) -> Iterator[Row]:
    """Yield the rows of one sequence. ValueError for scores that a table can't hold."""
    if found.get("source_attributions") is not None:
        raise ValueError(f"{path} is of an encoder-decoder model: only decoder-only ones have a long table")
    scores = unpacked(found.get("target_attributions"), "scores", path)
    tokens = [attributes_of(token, TOKEN[1], path)["token"] for token in found["target"]]
    start, stop = found["attr_pos_start"], found["attr_pos_end"]
    if scores.shape != (len(tokens), stop - start):
        raise ValueError(
            f"{path} has scores of shape {scores.shape}, expected ({len(tokens)}, {stop - start}), tokens by predicted "
            "ones: save out.aggregate() instead of out"
        )
    log2_probs = log2_probs_of(found.get("step_scores") or {}, path)
    for step, log2_prob in enumerate(log2_probs.tolist()):
        target = start + step
        for source in np.flatnonzero(~np.isnan(scores[:target, step])).tolist():
            key = (article, 0, target - has_bos, tokens[target], source - has_bos, tokens[source], target - source)
            yield (*key, log2_prob, measure, float(scores[source, step]))


def log2_probs_of(steps: Mapping[str, Any], path: Path) -> Float[np.ndarray, " predicted"]:
    """Return the log2 probabilities of a sequence's predicted tokens. ValueError where the file has none."""
    if LOG2_PROB in steps:
        return unpacked(steps[LOG2_PROB], "probabilities", path)
    if "probability" not in steps:
        raise ValueError(f"{path} has no probabilities: attribute with step_scores=['probability']")
    probabilities = unpacked(steps["probability"], "probabilities", path).astype(np.float64)
    if not (probabilities > 0).all():
        raise ValueError(f"{path} has probabilities that are not above 0, of which there is no logarithm")
    return np.log2(probabilities)


def unpacked(value: Any, what: str, path: Path) -> Float[np.ndarray, "..."]:
    """Return the array that is packed in an inseq file. ValueError, naming `what`, where it is damaged or missing."""
    try:
        return load(base64.b64decode(value, validate=True))["attribution"]
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged, or of another version of inseq: its {what} can't be read") from error
