"""Contrast items: our form, BLiMP's, and what is refused."""

import json

import pytest

from decomp.corpus.contrast_items import Item, read_items, tokenise
from decomp.models.loading import load_tokenizer
from tests.conftest import SHARED, needs_shared

OURS = "item,phenomenon,prompt,target,foil,evidence\n,,The cats,sleep,sleeps,cats\nx,number,A dog,sleeps,sleep,\n"
BLIMP = (
    ",one_prefix_prefix,one_prefix_word_good,one_prefix_word_bad,UID,pairID,target\n"
    "0,Katherine can't help,herself,himself,anaphor,0,Katherine\n"
    "1,Rose praised,herself,itself,anaphor,1,NA\n"
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("demo-gpt2")


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_our_form(tmp_path):
    path = write(tmp_path, "a.csv", OURS)
    assert read_items(path) == [
        Item(f"{path}, line 2", 0, "0", "a", "The cats", "sleep", "sleeps", "cats"),
        Item(f"{path}, line 3", 1, "x", "number", "A dog", "sleeps", "sleep", ""),
    ]


def test_blank_columns_that_need_not_be_filled(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"prompt": "A", "target": "b", "foil": "c", "item": " ", "evidence": null}')
    assert read_items(path) == [Item(f"{path}, line 1", 0, "0", "a", "A", "b", "c", "")]


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_other_kinds_of_file(tmp_path, suffix):
    row = {"prompt": "The cats", "target": "sleep", "foil": "sleeps"}
    text = "\n".join(["\t".join(row), "\t".join(row.values())]) if suffix == "tsv" else json.dumps(row)
    (item,) = read_items(write(tmp_path, f"b.{suffix}", text + "\n"))
    assert (item.name, item.phenomenon, item.prompt, item.target, item.foil, item.evidence) == (
        *("0", "b", "The cats", "sleep"),
        *("sleeps", ""),
    )


def test_blimp_form(tmp_path):
    first, second = read_items(write(tmp_path, "c.csv", BLIMP))
    assert (first.prompt, first.target, first.foil) == ("Katherine can't help", "herself", "himself")
    assert (first.phenomenon, first.evidence, second.evidence) == ("anaphor", "Katherine", "")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "prompt,target\nx,y\n", r"a.csv, line 2 lacks foil: it has prompt, target"),
        ("a.csv", "text\nx\n", r"a.csv, line 2 lacks prompt, target, foil: it has text"),
        ("a.csv", "one_prefix_prefix,target\nx,y\n", r"line 2 lacks one_prefix_word_good, one_prefix_word_bad: it has"),
        ("a.csv", "prompt,target,foil\nx,y,z\nx,y,y\n", r"a.csv, line 3: target and foil are both 'y'"),
        ("a.jsonl", '{"prompt": "x", "target": 1, "foil": "y"}\n', r"a.jsonl, line 1: target must be text, it is 1"),
        (
            "a.jsonl",
            '{"prompt": "x", "target": "z", "foil": "y", "item": 7}\n',
            r"line 1: item must be text, it is 7",
        ),
        ("a.csv", "prompt,target,foil\nx, ,z\n", r"a.csv, line 2: target is blank: give some text"),
        ("a.csv", "prompt,target,foil\n,y,z\n", r"a.csv, line 2: prompt is blank"),
        ("a.jsonl", '{"prompt": "x", "target": "z", "foil": "\\n"}\n', r"a.jsonl, line 1: foil is blank"),
        ("b.csv", BLIMP.replace("himself", " "), r"b.csv, line 2: one_prefix_word_bad is blank"),
        ("a.csv", "", r"a.csv has no rows: expected columns prompt, target, foil"),
        ("a.txt", "", r"a.txt must be one of .csv, .tsv, .jsonl"),
    ],
)
def test_bad_tables(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_items(write(tmp_path, name, text))


def tokens(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


@pytest.mark.parametrize(
    ("prompt", "target", "foil", "expected"),
    [
        ("He saw", "her", "him", ("Ġsaw", "Ġher", "Ġhim")),
        ("He saw ", "her", "him", ("Ġsaw", "Ġher", "Ġhim")),
        ("He saw", " her", "him", ("Ġsaw", "Ġher", "Ġhim")),
        ("He saw", ",", ".", ("Ġsaw", ",", ".")),
        ("He saw ", "(", "her", ("Ġsaw", "Ġ(", "Ġher")),
        ("He saw\n", "her", ".", ("Ċ", "her", ".")),
    ],
)
def test_where_the_space_goes(tokenizer, prompt, target, foil, expected):
    item = tokenise(Item("", 0, "", "", prompt, target, foil), tokenizer, 50, 0)
    assert (tokens(tokenizer, item.prompt)[-1], *tokens(tokenizer, item.target + item.foil)) == expected
    assert item.prompt[0] == 0
    assert item.has_bos
    bare = tokenise(Item("", 0, "", "", prompt, target, foil), tokenizer, 50, None)
    assert bare.prompt == item.prompt[1:]
    assert not bare.has_bos


def test_evidence_is_every_token_of_every_occurrence(tokenizer):
    item = Item("", 0, "", "", "Katherine said that Katherines like Katherine", "herself", "himself", "Katherine")
    result = tokenise(item, tokenizer, 50, 0)
    found = "".join(tokens(tokenizer, (result.prompt[k] for k in result.evidence)))
    assert found == "KatherineĠKatherine"
    bare = tokenise(item, tokenizer, 50, None)
    assert bare.evidence == tuple(k - 1 for k in result.evidence)


def test_evidence_is_a_word(tokenizer):
    for evidence in ("Kat", "her", "x", ""):
        item = Item("", 0, "", "", "Katherine saw", "her", "him", evidence)
        assert tokenise(item, tokenizer, 50, 0).evidence == ()
    item = Item("", 0, "", "", "Then Jean-Luc saw", "him", "her", "Jean-Luc")
    result = tokenise(item, tokenizer, 50, 0)
    assert "".join(tokens(tokenizer, (result.prompt[k] for k in result.evidence))) == "ĠJean-Luc"


@pytest.mark.parametrize(
    ("prompt", "target", "foil", "message"),
    [
        ("", "a", "b", r"t.csv, line 9: the prompt '' has no tokens"),
        (" ", "a", "b", r"t.csv, line 9: the prompt ' ' has no tokens"),
        ("x", "", "b", r"t.csv, line 9: the target '' has no tokens: give a word"),
        ("x ", "a", " ", r"t.csv, line 9: the foil ' ' has no tokens"),
        ("x", "a", " a", r"t.csv, line 9: target 'a' and foil ' a' are the same tokens"),
        ("x " * 50, "a", "b", r"t.csv, line 9: the item has \d+ tokens, the model has 48 positions: shorten it"),
    ],
)
def test_items_that_cannot_be_tokenised(tokenizer, prompt, target, foil, message):
    with pytest.raises(ValueError, match=message):
        tokenise(Item("t.csv, line 9", 0, "", "", prompt, target, foil), tokenizer, 48, 0)


def test_positions_that_are_just_enough(tokenizer):
    item = Item("", 0, "", "", "He saw", "her", "him")
    assert len(tokenise(item, tokenizer, 4, 0).prompt) == 3
    with pytest.raises(ValueError, match="has 4 tokens, the model has 3 positions"):
        tokenise(item, tokenizer, 3, 0)


@needs_shared
def test_blimp_files_as_they_are(tokenizer):
    evidence = {}
    for path in sorted((SHARED / "blimp").glob("*.csv")):
        items = read_items(path)
        assert {item.phenomenon for item in items} == {path.stem}
        tokenised = [tokenise(item, tokenizer, 512, 0) for item in items[:200]]
        evidence[path.stem] = sum(bool(item.evidence) for item in tokenised)
        assert len(items) == 1000
        assert all(item.evidence or t.evidence == () for item, t in zip(items, tokenised, strict=False))
    assert len(evidence) == 12
    assert all(count > 185 for count in evidence.values())
    assert evidence["ioi_dataset"] == 200
