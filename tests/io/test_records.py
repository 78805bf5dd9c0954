"""Tables that people bring, good and bad."""

import pytest

from decomp.io.records import Record, parse_json, read_records, text_of

GOOD = {
    "a.csv": 'prompt,target\n"He said, ""go""",now\n"two\nlines",x\n',
    "a.tsv": 'prompt\ttarget\n"He said, ""go"""\tnow\n"two\nlines"\tx\n',
    "a.jsonl": '{"prompt": "He said, \\"go\\"", "target": "now"}\n\n{"prompt": "two\\nlines", "target": "x"}\n',
}


@pytest.mark.parametrize("name", GOOD)
def test_every_kind(name, tmp_path):
    path = tmp_path / name
    path.write_text(GOOD[name], encoding="utf-8")
    records = read_records(path, ["prompt", "target"])
    assert [dict(r.values) for r in records] == [
        {"prompt": 'He said, "go"', "target": "now"},
        {"prompt": "two\nlines", "target": "x"},
    ]
    assert records[0].place == f"{path}, line {1 if name.endswith('jsonl') else 2}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xml", "", r"a.xml must be one of .csv, .tsv, .jsonl, .parquet, .arrow, not '.xml'"),
        ("a", "", r"not 'without a suffix'"),
        ("a.csv", "", r"a.csv has no rows: expected columns prompt, target"),
        ("a.csv", "prompt,foil\nx,y\n", r"a.csv, line 2 lacks target: it has prompt, foil"),
        ("a.csv", "prompt,target\nx\n", r"a.csv, line 2 lacks target"),
        ("a.csv", 'prompt,target\n"x,y\n', r"a.csv, line 1: .*; expected CSV"),
        ("a.jsonl", '{"prompt": 1,\n', r"a.jsonl, line 1 is not JSON"),
        ("a.csv", "prompt,target,prompt\nx,y,z\n", r"a.csv has two columns 'prompt': rename one"),
        ("a.csv", "prompt,target\nx,y,z\n", r"a.csv, line 2 has 3 fields, the table has 2 columns: put fields that"),
        ("a.tsv", "prompt\ttarget\nx\ty\tz\tw\n", r"a.tsv, line 2 has 4 fields, the table has 2 columns: .*'\\t'"),
        ("a.jsonl", "[" * 200_000 + "]" * 200_000, r"a.jsonl, line 1 is nested too deeply to be read"),
        ("a.jsonl", '{"a": ' * 200_000 + "1" + "}" * 200_000, r"a.jsonl, line 1 is nested too deeply to be read"),
        ("a.jsonl", '{"prompt": ["\\udc00"]}', r"a.jsonl, line 1 has \\udc00, half of a surrogate pair"),
        ("a.jsonl", '{"prompt": ' + "1" * 5000 + "}", r"a.jsonl, line 1 is not JSON: Exceeds the limit"),
        ("a.jsonl", '\n\n"text"', r"a.jsonl, line 3 must be a JSON object"),
        ("a.jsonl", "[1]\n", r"a.jsonl, line 1 must be a JSON object, it is '\[1\]'"),
    ],
)
def test_bad_input(name, text, message, tmp_path):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_records(path, ["prompt", "target"])


def test_only_line_feeds_end_a_row(tmp_path):
    for name, text in {
        "a.csv": "prompt,target\na\u2028b,c\n",
        "a.jsonl": '{"prompt": "a\u2028b", "target": "c"}',
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (record,) = read_records(tmp_path / name, ["prompt"])
        assert dict(record.values) == {"prompt": "a\u2028b", "target": "c"}


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"can't read .*none.csv"):
        read_records(tmp_path / "none.csv", ["prompt"])


def test_whole_surrogate_pairs_are_characters():
    assert parse_json('"\\ud83d\\ude00"', "here") == "\N{GRINNING FACE}"


ROW = Record("t.csv, line 4", {"word": " it ", "blank": " \n", "empty": "", "none": None, "number": 3, "list": ["a"]})


def test_text_of_a_column():
    assert text_of(ROW, "word") == " it "
    for column in ("blank", "empty", "none", "absent"):
        assert text_of(ROW, column, may_be_blank=True) == ""
        with pytest.raises(ValueError, match=rf"t\.csv, line 4: {column} is blank: give some text"):
            text_of(ROW, column)
    for column in ("number", "list"):
        with pytest.raises(ValueError, match=rf"t\.csv, line 4: {column} must be text, it is "):
            text_of(ROW, column, may_be_blank=True)
