"""Predictors of reading times, by hand and against a slow loop; joined to the rows of readers."""

import gzip
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import decomp
from decomp.tables.blocks import block_of, concatenate, length, rows_of, take
from decomp.tables.columns import COLUMNS
from decomp.tables.joining import Key, join, parse_key, read_other
from decomp.tables.predictors import SPREAD, Predictors, zipf_frequency
from tests.commands import MODEL

NAMES = ("word", "char_start", "char_end", "source_word", *COLUMNS)
WORDS = ("The", "cat", "(said", "Mr.", "Fox.)", "Then", "it", "slept")


def row(position, source, score, measure="m", article=0, window=0, token=None):
    own = WORDS[position % len(WORDS)]
    name = token or ("<s>" if source == -1 else WORDS[source % len(WORDS)])
    source = None if token else source
    place = (position, 10 * position, 10 * position + len(own), source)
    distance = None if source is None else position - source
    return (*place, article, window, position, own, source, name, distance, -float(position), measure, score)


def scores(position, measure):
    """Some of either sign, one of them zero."""
    return [round(math.sin(7 * position + 3 * k + len(measure)), 3) if k != 2 else 0.0 for k in range(-1, position)]


def table(articles=(0, 1), measures=("m", "other"), extra=True, words=8):
    rows = []
    for article, (window, places), measure in itertools.product(
        articles, enumerate((range(5), range(5, words))), measures
    ):
        for position in places:
            rows += [row(position, k, s, measure, article, window) for k, s in enumerate(scores(position, measure), -1)]
            rows += [row(position, None, 0.25, measure, article, window, "<bias>")] if extra else []
    return block_of(NAMES, rows)


def found(block, **asked):
    predictors = Predictors(**asked)
    whole = concatenate(list(predictors([block])))
    assert tuple(whole) == predictors.columns(tuple(block))
    return [dict(zip(whole, values, strict=True)) for values in rows_of(whole)]


def slowly(position, measure, distal):
    """The same numbers for one word, from the definition."""
    own = dict(enumerate(scores(position, measure), -1))
    bos, everything = own.pop(-1), sum(map(abs, own.values())) + abs(scores(position, measure)[0]) + 0.25
    total = sum(map(abs, own.values()))
    shares = {k: abs(s) / total for k, s in own.items()} if total else dict.fromkeys(own, 0.0)
    far = [s for k, s in own.items() if position - k > distal]
    entropy = -sum(p * math.log2(p) for p in shares.values() if p)
    return shares, {
        "distal_max": max(far, default=None),
        "distal_sum": sum(far) if far else None,
        "mean_distance": sum(p * (position - k) for k, p in shares.items()) if total else None,
        "score_entropy": entropy if own else None,
        "normalised_entropy": entropy / math.log2(len(own)) if len(own) > 1 else None,
        "bos_share": abs(bos) / everything,
        "bias_share": 0.25 / everything,
    }


@pytest.mark.parametrize("distal", [0, 2, 10])
def test_every_number_by_its_definition(distal):
    rows = found(table(), distal=distal)
    assert len(rows) == 2 * 2 * 8
    for one in rows:
        position, measure = one["position"], one["measure"]
        shares, expected = slowly(position, measure, distal)
        if position > 0:
            earlier, before = slowly(position - 1, measure, distal)
            union = {*shares, *earlier}
            expected["manhattan"] = sum(abs(shares.get(k, 0) - earlier.get(k, 0)) for k in union)
            if before["normalised_entropy"] is not None:
                now, last = expected["normalised_entropy"], before["normalised_entropy"]
                expected["entropy_change"] = abs(now - last)
        for name in SPREAD:
            value = expected.get(name)
            assert one[name] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)), (name, one)
        assert one["surprisal"] == position


def test_words_and_sentences():
    rows = [r for r in found(table()) if (r["article"], r["measure"]) == (1, "m")]
    assert [r["length"] for r in rows] == [3, 3, 5, 3, 5, 4, 2, 5]
    assert [r["sentence"] for r in rows] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert [r["position_in_sentence"] for r in rows] == [0, 1, 2, 3, 4, 0, 1, 2]


def test_spillover_is_of_the_same_article_and_measure():
    rows = found(table(), spillover=2)
    by_place = {(r["article"], r["measure"], r["position"]): r for r in rows}
    for (article, measure, position), one in by_place.items():
        for lag, name in itertools.product((1, 2), ("surprisal", "length", "manhattan", "bias_share")):
            before = by_place.get((article, measure, position - lag))
            assert one[f"{name}_{lag}"] == (None if before is None else before[name])


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_blocks_may_be_cut_anywhere_between_targets(size):
    from decomp.tables.reduction import whole_targets

    block = table()
    pieces = [take(block, slice(start, start + size)) for start in range(0, length(block), size)]
    assert list(rows_of(concatenate(list(Predictors()(whole_targets(pieces)))))) == list(
        rows_of(concatenate(list(Predictors()([block]))))
    )


def test_no_rows():
    assert list(Predictors()([])) == list(Predictors()([take(table(), slice(0, 0))])) == []


def test_single_precision_and_empty_sources():
    block = {**table(extra=False), "score": table(extra=False)["score"].astype(np.float32)}
    for one, other in zip(found(block), found(table(extra=False)), strict=True):
        assert one["bias_share"] is other["bias_share"] is None
        if other["manhattan"] is not None:
            assert one["manhattan"] == pytest.approx(other["manhattan"], abs=1e-6)
    zero = {**table(), "score": np.zeros(length(table()))}
    assert {one["mean_distance"] for one in found(zero)} == {None}
    assert {one["bos_share"] for one in found(zero)} == {None}


def test_bad_settings():
    for asked in ({"distal": -1}, {"spillover": -1}):
        with pytest.raises(ValueError, match="distal and spillover must be from 0"):
            Predictors(**asked)


def test_frequencies(monkeypatch):
    pytest.importorskip("wordfreq", reason="needs the extra frequency")
    rows = found(table(), frequency=zipf_frequency("en"), spillover=1)
    assert rows[0]["frequency"] > rows[1]["frequency"] > 3
    assert rows[1]["frequency_1"] == rows[0]["frequency"]
    with pytest.raises(ValueError, match="there are no frequencies of words of 'xx': wordfreq has"):
        zipf_frequency("xx")
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(ValueError, match="--frequency needs wordfreq: pip install"):
        zipf_frequency("en")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zone=word+1", Key("zone", "word", 1)),
        ("my zone = word - 2", Key("my zone", "word", -2)),
        ("item=article_id", Key("item", "article_id")),
    ],
)
def test_keys(text, expected):
    assert parse_key(text.replace("= ", "=")) == expected


@pytest.mark.parametrize("text", ["", "zone", "=word", "zone=", "zone=word+", "zone=word+x", "a=b=c+1", "zone=word*2"])
def test_keys_that_are_none(text):
    if text == "a=b=c+1":
        text = "a=b c"
    with pytest.raises(ValueError, match="--on must be THEIRS=OURS"):
        parse_key(text)


OURS = block_of(
    ("article", "position", "token", "surprisal"), [(a, p, f"w{p}", a + p / 8) for a in (0, 1) for p in range(4)]
)
READERS = [("s1", a + 1, p + 1, f"w{p}", 300 + p) for a in (1, 0) for p in (3, 0, 1, 2)] * 2


def readers(rows):
    """A table of readers, whose column `word` is text."""
    own = block_of(("reader", "item", "zone", "text", "rt"), rows)
    return {"word" if name == "text" else name: column for name, column in own.items()}


THEIRS = readers(READERS)
ON = [Key("item", "article", 1), Key("zone", "position", 1)]


def test_join_keeps_all_rows_in_their_order():
    joined = join(THEIRS, OURS, ON, "word")
    assert list(joined.block) == ["reader", "item", "zone", "word", "rt", "article", "position", "token", "surprisal"]
    assert [r[:5] for r in rows_of(joined.block)] == READERS
    assert [r[-1] for r in rows_of(joined.block)] == [item - 1 + (zone - 1) / 8 for _, item, zone, *_ in READERS]
    assert joined.report() == "16 of 16 rows matched; 0 words have no row"


def test_what_does_not_match_is_said():
    rows = [*READERS, ("s1", 9, 9, "w", 1), ("s1", 1, 1, "other", 2), (None, None, 3, "w2", 5)]
    joined = join(readers(rows), OURS, ON, "word")
    assert joined.report().splitlines() == [
        "17 of 19 rows matched; 0 words have no row",
        "not matched, the first: 9, 9; None, 3",
        "1 rows have another word: 'other' is 'w0' here",
    ]
    assert [r[-1] for r in rows_of(joined.block)][-3:] == [None, 0.0, None]


def test_columns_of_both_are_told_apart():
    joined = join({**THEIRS, "surprisal": THEIRS["rt"]}, OURS, ON)
    assert joined.block["surprisal"].tolist() == THEIRS["rt"].tolist()
    assert joined.block["decomp_surprisal"][0] == 1 + 3 / 8


@pytest.mark.parametrize(
    ("theirs", "ours", "keys", "message"),
    [
        (
            THEIRS,
            OURS,
            [Key("item", "article", 1), Key("zone", "position", 9)],
            r"most rows do not match: 0 of 16",
        ),
        (THEIRS, OURS, [Key("item", "article", 2), Key("zone", "position", 1)], r"most rows .* Change --on"),
        (THEIRS, OURS, [], r"say which columns are the same: --on"),
        (THEIRS, OURS, [Key("items", "article")], r"joined has no column 'items': did you mean item\?"),
        (THEIRS, OURS, [Key("item", "articles")], r"the table has no column 'articles': did you mean article\?"),
        (THEIRS, OURS, [Key("word", "position")], r"'word' has to be whole numbers, as 'position' is"),
        (THEIRS, OURS, [Key("word", "token", 1)], r"'token' is text, which can't be shifted: leave out \+1"),
        (THEIRS, OURS, [Key("zone", "position", 1)], r"position 1 is in several rows here: add a key"),
        (take(THEIRS, slice(0, 0)), OURS, ON, r"the table to be joined has no rows"),
    ],
)
def test_joins_that_are_refused(theirs, ours, keys, message):
    with pytest.raises(ValueError, match=message):
        join(theirs, ours, keys)


def test_other_words_are_refused_and_so_is_no_column_of_words():
    with pytest.raises(ValueError, match=r"do not match: 16 of 16 .* 16 rows have another word: 's1' is 'w3'"):
        join(THEIRS, OURS, ON, "reader")
    for name in ("rt", "none"):
        with pytest.raises(ValueError, match=f"'{name}' is no column of words"):
            join(THEIRS, OURS, ON, name)


def test_tables_that_people_bring(tmp_path):
    text = 'reader,item,zone,word,rt,empty\ns1,1,1,"a, b",300.5,\nNA,1,2,null,301,\n'
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.tsv").write_text(text.replace('"a, b"', "a; b").replace(",", "\t"))
    for name in ("a.csv", "a.csv.gz", "a.tsv"):
        block = read_other(tmp_path / name)
        assert [r[4] for r in rows_of(block)] == [300.5, 301]
        assert [r[3] for r in rows_of(block)][1] == "null"
        assert [r[0] for r in rows_of(block)] == ["s1", "NA"]
        assert [r[5] for r in rows_of(block)] == [None, None]
    for name, content, message in (
        ("none.csv", None, "can't read .*none.csv"),
        ("b.csv", "", "can't read .*b.csv"),
        ("c.csv", "a,a\n1,2\n", "has two columns 'a': rename one"),
        ("d.csv", "a,b\n1\n", "can't read .*d.csv"),
        ("e.csv", b"a,b\n\xff,2\n", "e.csv"),
        ("f.xlsx", "", r"must be .csv, .tsv or .parquet"),
        ("g.parquet", "PAR1", "can't read .*g.parquet"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=message):
            read_other(tmp_path / name)


TEXT = "The cat sat on the mat. Then the old dog came, and it slept."


@pytest.fixture
def words(done):
    Path("c.txt").write_text(TEXT)
    done("score", "c.txt", MODEL, "--unit", "word", "--entropy", "--corrected", "--extra-rows", "-o", "words.parquet")
    return "words.parquet"


def test_the_command(done, words):
    done("table", words, "--predictors", "--spillover", 1, "--distal", 3, "-o", "p.parquet")
    rows = read_other(Path("p.parquet"))
    assert length(rows) == len(TEXT.split())
    assert {"corrected_surprisal", "entropy", "manhattan_1"} < set(rows)
    readers = "".join(f"r{r}\t1\t{n}\t{w}\t{300 + n}\n" for r in (1, 2) for n, w in enumerate(TEXT.split(), 1))
    Path("rts.tsv").write_text("reader\titem\tzone\ttext\trt\n" + readers)
    on = ("--on", "item=article+1", "--on", "zone=word+1", "--on-word", "text")
    done("table", words, "--predictors", "--join", "rts.tsv", *on, "--digits", 3, "-o", "joined.csv")
    joined = read_other(Path("joined.csv"))
    assert length(joined) == 2 * len(TEXT.split())
    assert list(joined["rt"]) == list(read_other(Path("rts.tsv"))["rt"])


def test_in_python():
    table = decomp.score(TEXT, MODEL, unit="word", extra=True)
    words = table.predictors(spillover=1)
    assert len(words) == len(TEXT.split())
    assert list(words["sentence"]) == [0] * 6 + [1] * 8
    assert words.about["table"] == {"predictors": True}
    assert words["surprisal_1"][1:].tolist() == words["surprisal"][:-1].tolist()


def test_the_command_refuses(run, words):
    Path("rts.csv").write_text("item,zone\n1,1\n")
    for options, said in (
        (("--predictors", "--summary"), "--predictors are of all sources"),
        (("--predictors", "--top", 3), "--predictors are of all sources"),
        (("--join", "rts.csv", "--on", "item=article"), "--join is for one row per word"),
        (("--on", "item=article"), "--on and --on-word say how to join: give --join"),
        (("--predictors", "--join", "rts.csv"), "say which columns are the same"),
        (("--predictors", "--join", "rts.csv", "--on", "item"), "--on must be THEIRS=OURS"),
        (("--predictors", "--join", "none.csv", "--on", "item=article"), "can't read none.csv"),
        (("--predictors", "--spillover", -1), "-1 is not in the range"),
        (("--predictors", "--frequency", "xx"), "frequenc"),
    ):
        result = run("table", words, *options, "-o", "out.csv")
        assert result.exit_code == 2, options
        assert said in result.stderr
        assert "Traceback" not in result.stderr
        assert not Path("out.csv").exists()
    result = run("table", words, "--predictors", "--join", "rts.csv", "--on", "item=article", "-o", "rts.csv")
    assert "rts.csv is an input" in result.stderr


def test_tables_of_two_models(run, done):
    """A column says which model a row is of, and predictors are those of each model alone."""
    Path("c.txt").write_text(TEXT)
    for model, name in ((MODEL, "a"), ("demo-opt", "b")):
        done("score", "c.txt", model, "--unit", "word", "-o", f"{name}.parquet")
        done("table", f"{name}.parquet", "--predictors", "--spillover", 1, "-o", f"{name}.csv")
    assert "model.model" in run("table", "a.parquet", "b.parquet").stderr
    done("table", "a.parquet", "b.parquet", "--mixed", "--predictors", "--spillover", 1, "-o", "both.csv")
    alone, both = [Path(f"{name}.csv").read_text().splitlines() for name in "ab"], Path("both.csv").read_text()
    header, *rows = both.splitlines()
    assert header == f"model,{alone[0][0]}"
    assert rows == [f"opt-tiny-pre,{row}" for row in alone[0][1:]] + [f"demo-opt,{row}" for row in alone[1][1:]]
