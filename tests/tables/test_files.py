"""Tables through files of every format and back, merged, thinned out, summarised."""

import gzip
import itertools
import json

import pytest

from decomp.tables.blocks import block_of, rows_of
from decomp.tables.columns import COLUMNS
from decomp.tables.files import FORMAT_NAMES, format_of, open_table, read_lines, table_writer
from decomp.tables.leading_columns import LeadingColumns
from decomp.tables.operations import merge
from decomp.tables.reduction import Reduction
from decomp.tables.summary import summarise, summary_columns

NASTY = [
    "a\tb",
    'say "so"',
    '"',
    '""',
    "'",
    "new\nline",
    "re\rturn",
    "both\r\n",
    ",;|",
    "\\t\\",
    " padded ",
    "\u2028\u2029\x85",
    "\x0b\x0c\x1c",
    "\ufeff",
    "👍🏽",
    "ðŁĳį",
    "é",
    "None",
    "NA",
    "1",
    "-",
    "=1+1",
    "#",
    "<bias>",
]


def row(token="t", source="s", position=0, source_position=-1, score=1.5, article=0, window=0, **more):
    """A row of the bare columns."""
    values = {
        "article": article,
        "window": window,
        "position": position,
        "token": token,
        "source_position": source_position,
        "source_token": source,
        "distance": None if source_position is None else position - source_position,
        "log2_prob": -2.25,
        "measure": "delta_lp",
        "score": score,
        **more,
    }
    return tuple(values[name] for name in COLUMNS)


def write(path, rows, columns=COLUMNS, pieces=1):
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file, table_writer(file, path.suffix[1:], columns) as writer:
        for start in range(0, len(rows), max(1, len(rows) // pieces)):
            writer(iter(rows[start : start + max(1, len(rows) // pieces)]))
    return open_table(path)


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(FORMAT_NAMES, 2)])
def test_every_string_survives_two_formats(tmp_path, first, second):
    rows = [row(token, source) for token, source in itertools.product(NASTY, NASTY)]
    once = write(tmp_path / f"a.{first}", rows)
    twice = write(tmp_path / f"b.{second}", once.rows())
    assert once.columns == twice.columns == COLUMNS
    assert list(once.rows()) == list(twice.rows()) == rows


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_numbers_and_what_is_missing(tmp_path, name):
    columns = LeadingColumns(spans=True, article_ids=True, entropy=True).columns
    rest = row(source="<bias>", source_position=None, score=-1e-300)
    rows = [
        ("007", 2, 0, 5, 9, 0.1, -1, *row(score=1 / 3)),
        ("", 2, 0, None, None, None, None, *rest),
        ("x", 2, 1, 0, 1, 1e22, 0, *row(score=-0.0, log2_prob=-1e-7)),
    ]
    table = write(tmp_path / f"a.{name}", rows, columns)
    back = list(table.rows())
    assert table.columns == columns
    assert back == rows
    assert [list(map(type, one)) for one in back] == [list(map(type, one)) for one in rows]


@pytest.mark.parametrize("name", ["tsv", "csv", "parquet"])
def test_no_rows(tmp_path, name):
    assert list(write(tmp_path / f"a.{name}", []).rows()) == []


def test_row_groups(tmp_path, monkeypatch):
    import pyarrow.parquet

    monkeypatch.setattr("decomp.tables.parquet.ROW_GROUP", 100)
    table = write(tmp_path / "a.parquet", (row(position=n, score=float(n)) for n in range(205)), pieces=7)
    file = pyarrow.parquet.ParquetFile(table.path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 5]
    assert str(file.schema_arrow.field("token").type).startswith("dictionary")
    assert sum(one[-1] for one in table.rows()) == 205 * 204 / 2


def test_gzip(tmp_path):
    table = write(tmp_path / "a.tsv", [row("a\nb")])
    packed = tmp_path / "a.tsv.gz"
    packed.write_bytes(gzip.compress(table.path.read_bytes()))
    assert list(open_table(packed).rows()) == [row("a\nb")]
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"a.tsv.gz is truncated or no gzip file"):
        list(open_table(packed).rows())


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        (None, None, "tsv"),
        ("a.csv", None, "csv"),
        ("a.parquet", None, "parquet"),
        ("a", None, "tsv"),
        ("a.csv", "jsonl", "jsonl"),
    ],
)
def test_format_of(tmp_path, path, name, expected):
    assert format_of(path and tmp_path / path, name) == expected


def test_unknown_suffixes_are_refused_by_name(tmp_path):
    for name, suffix in (("a.txt", ".txt"), ("a.html", ".html"), ("a.tsv.gz", ".gz")):
        with pytest.raises(ValueError, match=rf"{name}: {suffix} is no format of a table: use one of .tsv, .csv"):
            format_of(tmp_path / name)
    assert format_of(tmp_path / "a.txt", "csv") == "csv"


def test_parquet_types_of_columns_that_no_list_knows(tmp_path):
    import pyarrow.parquet

    path, columns = tmp_path / "a.parquet", ("item", "text", "layer", "prefers_target", "score")
    rows = [(0, "#", None, True, 0.5), (1, "", 7, False, 1.0)]
    with path.open("w", encoding="utf-8") as file, table_writer(file, "parquet", columns) as writer:
        writer(rows)
    assert [tuple(row.values()) for row in pyarrow.parquet.read_table(path).to_pylist()] == rows


def json_row(**values):
    return json.dumps({**dict(zip(COLUMNS, row(), strict=True)), **values})


GOOD_LINES = ["\t".join(COLUMNS), "0\t0\t0\tt\t-1\ts\t1\t-2.25\tdelta_lp\t1.5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xls", "", r"a.xls must be one of tsv, csv, jsonl, parquet, by its suffix"),
        ("a.tsv", "", r"a.tsv lacks the columns article, window, .*: expected a table that decomp score wrote"),
        ("a.tsv", "article\tscore\n", r"a.tsv lacks the columns window, position"),
        ("a.tsv", "\n".join([*GOOD_LINES, GOOD_LINES[1][:20]]), r"a.tsv, rows 1 to 2 are no rows of article, .*"),
        ("a.tsv", "\n".join([*GOOD_LINES, "x" + GOOD_LINES[1]]), r"rows 1 to 2 .*invalid literal for int.*'x0'"),
        ("a.tsv", "\n".join([*GOOD_LINES, '"' + GOOD_LINES[1]]), r"a.tsv, line 3: .*; write it again"),
        ("a.tsv", b"\xff\n", r"a.tsv is not UTF-8"),
        (
            "a.tsv",
            "\n".join([*GOOD_LINES, GOOD_LINES[1][:-3] + "nan"]),
            r"rows 1 to 2 .*expected a finite number, not nan",
        ),
        ("a.jsonl", "{", r"a.jsonl, line 1 is not JSON"),
        ("a.jsonl", "[" * 10**5, r"a.jsonl, line 1 is nested too deeply"),
        ("a.jsonl", json_row(token="\ud83d"), r"a.jsonl, line 1 has \\ud83d, half of a surrogate pair"),
        ("a.jsonl", json_row(position=[]), r"rows 1 to 1 .*int\(\) argument must be"),
        ("a.jsonl", json_row(position=1.5), r"rows 1 to 1 .*expected a whole number, not 1.5"),
        ("a.jsonl", json_row(score=float("inf")), r"rows 1 to 1 .*expected a finite number, not inf"),
        ("a.jsonl", json_row(position=float("inf")), r"rows 1 to 1 .*cannot convert float infinity"),
        ("a.jsonl", json_row() + "\n{}", r"a.jsonl, line 2 must be an object"),
        ("a.parquet", "PAR1", r"a.parquet is truncated or no Parquet file"),
    ],
)
def test_bad_tables(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        list(open_table(path).rows())


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl.gz"])
def test_a_line_without_end_is_not_read(tmp_path, monkeypatch, name):
    """A packed one may unpack to more than there is memory, and is not shown whole."""
    monkeypatch.setattr("decomp.tables.files.LONGEST_LINE", 1000)
    path, content = tmp_path / name, "\n".join([*GOOD_LINES, "0\t" + "1" * 5000])
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    with pytest.raises(ValueError, match=f"{name} has a line of more than 1000 characters: it is no table"):
        list(read_lines(path))


def test_a_long_value_is_shown_in_part(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("\n".join([GOOD_LINES[0], GOOD_LINES[1].replace("-2.25", "x" * 10**4)]), "utf-8")
    with pytest.raises(ValueError, match="rows 1 to 1 are no rows") as refused:
        list(open_table(path).rows())
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_missing_file(tmp_path, name):
    with pytest.raises(ValueError, match=f"can't read .*none.{name}"):
        open_table(tmp_path / f"none.{name}")


def windows(*places):
    """Three targets of two sources and a bias for each (article, window)."""
    return [
        row(position=position, source_position=source, article=article, window=window, source=f"s{source}")
        for article, window in places
        for position in range(3)
        for source in (position - 2, position - 1, None)
    ]


def test_shards_merge_into_one_run(tmp_path):
    places = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (10, 0)]
    shards = [
        write(tmp_path / f"{i}.{name}", windows(*places[i::3])) for i, name in enumerate(("tsv", "parquet", "jsonl"))
    ]
    merged = list(itertools.chain.from_iterable(map(rows_of, merge(shards))))
    assert merged == windows(*places)


def test_measures_of_one_window_follow_one_another(tmp_path):
    first = windows((0, 0), (0, 1))
    second = [(*one[:-2], "other", one[-1]) for one in first]
    tables = [write(tmp_path / "a.tsv", first), write(tmp_path / "b.tsv", second)]
    merged = list(itertools.chain.from_iterable(map(rows_of, merge(tables))))
    assert merged == [*first[:9], *second[:9], *first[9:], *second[9:]]


def test_merge_refuses(tmp_path):
    a = write(tmp_path / "a.tsv", windows((0, 0), (0, 1)))
    b = write(tmp_path / "b.tsv", [row(article=0, window=1, position=2, score=9.0, log2_prob=-1.0)])
    with pytest.raises(ValueError, match=r"delta_lp of article 0, window 1, position 2 is in .*a.tsv and in .*b.tsv"):
        list(merge([a, b]))
    with pytest.raises(ValueError, match=r"position 0 is in .*a.tsv and in .*a.tsv: give each table once"):
        list(merge([a, a]))
    c = write(tmp_path / "c.tsv", [(3, *row())], ("word", *COLUMNS))
    with pytest.raises(ValueError, match=r"c.tsv has the columns word, article, .* only tables made with the same"):
        list(merge([a, c]))
    d = write(tmp_path / "d.tsv", windows((0, 1), (0, 0)))
    with pytest.raises(ValueError, match=r"d.tsv is not sorted: article 0, window 0 comes after article 0, window 1"):
        list(merge([d]))


SCORES = {(5, 0): 0.5, (5, 1): -4.0, (5, 2): 3.0, (5, 4): 1.0, (5, None): -1.5, (6, 3): 0.0, (6, None): 0.0}
TARGETS = [
    [row(position=p, source_position=k, score=s, source="<bias>" if k is None else f"s{k}") for (p, k), s in group]
    for _, group in itertools.groupby(SCORES.items(), lambda item: item[0][0])
]


def summaries(targets, columns=COLUMNS, **asked):
    """The rows of a summary, by name."""
    block = block_of(columns, itertools.chain.from_iterable(targets))
    (found,) = summarise([block], Reduction(**asked))
    assert tuple(found) == summary_columns(columns)
    return [dict(zip(found, values, strict=True)) for values in rows_of(found)]


def test_summary():
    first, second = summaries(TARGETS)
    assert first == {
        "article": 0,
        "window": 0,
        "position": 5,
        "token": "t",
        "surprisal": 2.25,
        "measure": "delta_lp",
        "strongest_source_position": 2,
        "strongest_source_token": "s2",
        "strongest_distance": 3,
        "strongest_score": 3.0,
        "strongest_share": 0.3,
        "bos_score": None,
        "bos_share": None,
        "bias_score": -1.5,
        "bias_share": 0.15,
    }
    assert (second["strongest_share"], second["bias_share"]) == (None, None)
    (one,) = summaries([[row(source_position=0)]])
    names = ("strongest_score", "strongest_share", "bias_score", "bias_share")
    assert [one[name] for name in names] == [1.5, 1.0, None, None]


SINK = [
    row(position=2, source_position=k, score=s, source="<bias>" if k is None else "s")
    for k, s in ((-1, 6.0), (0, 1.0), (1, -2.0), (None, -1.0))
]
"""A target that has most from the beginning-of-sequence token."""


@pytest.mark.parametrize(
    ("asked", "strongest"),
    [
        ({}, 0),
        ({"top": 1}, 0),
        ({"top": 3}, 0),
        ({"max_distance": 1}, 1),
        ({"min_abs": 1.5}, 1),
        ({"min_abs": 3}, None),
    ],
)
def test_the_beginning_of_sequence_is_never_the_strongest(asked, strongest):
    """And shares are of the sum of all absolute scores, whatever is kept."""
    (found,) = summaries([SINK], **asked)
    assert found["strongest_source_position"] == strongest
    assert found["strongest_share"] == {0: 0.1, 1: 0.2, None: None}[strongest]
    assert (found["bos_score"], found["bos_share"], found["bias_share"]) == (6.0, 0.6, 0.1)


def test_summary_keeps_what_stands_in_front(tmp_path):
    columns = LeadingColumns("word", entropy=True).columns
    rows = [(0, 3, 8, 4.5, -1, *row()), (0, 3, 8, 4.5, None, *row(source="<bias>", source_position=None))]
    (one,) = summaries([rows], columns)
    assert one["entropy"] == 4.5
    assert tuple(one.values())[:4] == (0, 3, 8, 4.5)
