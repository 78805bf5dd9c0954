"""Tables that people bring, good and bad."""

import pytest

from decomp.io.records import read_records

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
        ("a.xml", "", r"a.xml must be one of .csv, .tsv, .jsonl, not '.xml'"),
        ("a", "", r"not 'without a suffix'"),
        ("a.csv", "", r"a.csv has no rows: expected columns prompt, target"),
        ("a.csv", "prompt,foil\nx,y\n", r"a.csv, line 2 lacks target: it has prompt, foil"),
        ("a.csv", "prompt,target\nx\n", r"a.csv, line 2 lacks target"),
        ("a.csv", 'prompt,target\n"x,y\n', r"a.csv, line 1: .*; expected CSV"),
        ("a.jsonl", '{"prompt": 1,\n', r"a.jsonl, line 1 is not JSON"),
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
