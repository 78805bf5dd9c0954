"""Items of contexts, and where their segments stand among the tokens."""

import json

import pytest

from decomp.corpus.context_items import read_context_items
from decomp.corpus.contexts import render_context, tokenise_context
from decomp.models.loading import load_config, load_tokenizer
from tests.commands import ROOT

DEMO = str(ROOT / "data" / "demo-opt")
SEGMENTS = [{"name": "cat", "text": "The cat sat on the mat."}, {"text": "The key was lost."}]
CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<s>system\nBe kind.</s>\n{% endif %}"
    "<s>{{ m['role'] }}\n{{ m['content'] | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
TURNS = [
    {"role": "user", "content": [{"name": "a", "text": " The user sat."}, {"name": "b", "text": "user"}]},
    {"role": "assistant", "content": "system"},
    {"role": "user", "content": "Where? "},
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DEMO)


def read(*items):
    return read_context_items(list(items))


def texts_of_segments(context):
    return [context.text[first:stop] for first, stop in context.spans]


def test_segments_are_lines_of_one_text():
    (item,) = read({"id": "x", "segments": SEGMENTS, "answer": "It sat."})
    context = render_context(item, None)
    assert context.text == "The cat sat on the mat.\nThe key was lost."
    assert texts_of_segments(context) == [segment.text for segment in item.segments]
    assert [(segment.name, segment.ranked) for segment in item.segments] == [("cat", True), ("segment 2", True)]


def test_examples_are_segments_before_a_question():
    examples = [{"input": "2 + 2", "output": "4"}, {"input": "1 + 2", "output": "3", "name": "odd"}]
    (item,) = read({"instruction": "Add.", "examples": examples, "question": "3 + 3", "answer": "6"})
    assert render_context(item, None).text == "Add.\n\n2 + 2\n4\n\n1 + 2\n3\n\n3 + 3\n"
    ranked = {segment.name: segment.ranked for segment in item.segments}
    assert ranked == {"instruction": False, "example 1": True, "odd": True, "question": False}


def test_messages_stand_where_the_template_puts_them(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", CHATML, raising=False)
    (item,) = read({"messages": TURNS})
    context = render_context(item, tokenizer)
    assert context.text.startswith("<s>system\nBe kind.</s>\n<s>user\nThe user sat.\nuser</s>\n")
    assert context.text.endswith("Where?</s>\n<s>assistant\n")
    assert texts_of_segments(context) == ["The user sat.", "user", "system", "Where?"]
    assert [segment.name for segment in item.segments] == ["a", "b", "assistant 2", "user 3"]


@pytest.mark.parametrize(
    ("template", "line"),
    [
        (None, "item 0: the model's tokenizer has no chat template: give segments"),
        (
            "{{ raise_exception('No system!') }}",
            r"message 1 \(user\): .* template refuses it: No system!",
        ),
        ("{{ messages[-1]['content'] }}", r"message 2 \(assistant\): the model's chat template does not tell where"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", r"message 1 .* does not tell where"),
        ("{% for m in messages %}{{ m['content'] * 2 }}{% endfor %}", r"message 1 .* does not tell where"),
        (
            "{% if add_generation_prompt %}!{% endif %}{% for m in messages %}{{ m['content'] }}{% endfor %}",
            "item 0: the model's chat template changes messages when an answer follows",
        ),
    ],
)
def test_templates_that_do_not_tell_are_refused(tokenizer, monkeypatch, template, line):
    monkeypatch.setattr(tokenizer, "chat_template", template, raising=False)
    with pytest.raises(ValueError, match=line):
        render_context(read({"messages": TURNS})[0], tokenizer)


def test_every_token_has_its_segment(tokenizer):
    (item,) = read({"segments": SEGMENTS, "answer": "The cat sat."})
    context = tokenise_context(item, tokenizer, load_config(DEMO), 512)
    tokens = tokenizer.convert_ids_to_tokens(context.ids.tolist())
    cat, key, bos, template, own = (
        [token for token, label in zip(tokens, context.labels.tolist(), strict=True) if label == number]
        for number in (0, 1, 2, 3, 4)
    )
    assert tokenizer.convert_tokens_to_string(cat) == SEGMENTS[0]["text"]
    assert tokenizer.convert_tokens_to_string(key) == SEGMENTS[1]["text"]
    assert (bos, template) == (["</s>"], ["Ċ"])
    assert tokenizer.convert_tokens_to_string(own) == " The cat sat."
    assert context.source_order == [2, 0, 3, 1, 4]


def test_items_that_are_none_are_told_by_file_and_line(tmp_path):
    path = tmp_path / "items.jsonl"
    good = {"segments": SEGMENTS, "answer": "It sat."}
    for bad, line in [
        ({"answer": "x"}, "lacks segments: it has answer"),
        ({"segments": []}, r"segments must be a list of objects, it is \[\]"),
        ({"segments": "text"}, "segments must be a list of objects, it is 'text'"),
        ({"segments": ["text"]}, "segment 1 must be an object, it is 'text'"),
        ({"segments": [{"name": "a"}]}, "a lacks text: it has name"),
        ({"segments": [{"text": " "}]}, "segment 1: text is blank"),
        ({"segments": [{"text": 3}]}, "segment 1: text must be text, it is 3"),
        ({"segments": [{"text": "a", "ranked": "no"}]}, "ranked of segment 1 must be true or false, it is 'no'"),
        ({"segments": [{"text": "a", "ranked": False}]}, "has no segment that is ranked"),
        ({"segments": [{"name": "<a>", "text": "a"}]}, "has a segment '<a>'"),
        ({"segments": [{"name": "a", "text": "b"}] * 2}, "has two segments 'a'"),
        ({"segments": SEGMENTS, "messages": TURNS}, "has segments and messages: give one of them"),
        ({"segments": SEGMENTS, "answer": ""}, "answer is blank"),
        ({"messages": [{"content": "a"}]}, "message 1 lacks role"),
        ({"messages": [{"role": "user"}]}, "user 1 lacks text"),
        ({"examples": [{"input": "a"}], "question": "b"}, "example 1 lacks output"),
        ({"examples": [{"input": "a", "output": "b"}]}, "lacks question"),
        ({**good, "evidence": "dog"}, "the evidence 'dog' is no ranked segment: choose among cat, segment 2"),
        ({**good, "id": "0"}, "has the id '0' of .*line 1: ids must differ"),
    ]:
        path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
        with pytest.raises(ValueError, match=rf"items\.jsonl, line 2.*{line}"):
            read_context_items(path)
    with pytest.raises(ValueError, match="expected the Path of a file of items, or a list of mappings, not 'items"):
        read_context_items("items.jsonl")
    with pytest.raises(ValueError, match="there are no items"):
        read_context_items([])


def test_what_has_no_tokens_or_too_many_is_refused(tokenizer):
    config = load_config(DEMO)
    (item,) = read({"segments": SEGMENTS, "answer": "It sat."})
    with pytest.raises(ValueError, match=r"item 0: context and answer have \d+ tokens, the model has 9 positions"):
        tokenise_context(item, tokenizer, config, 9)
    (unanswered,) = read({"segments": SEGMENTS})
    with pytest.raises(ValueError, match="item 0: the model writes no answer: give one"):
        tokenise_context(unanswered, tokenizer, config, 512, write=lambda ids: ids[:0])
    (joined,) = read({"messages": [{"role": "user", "content": [{"text": "a b"}, {"text": "c"}]}]})
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | replace('\n', '') }}{% endfor %}"
    try:
        with pytest.raises(ValueError, match="does not tell where"):
            tokenise_context(joined, tokenizer, config, 512)
    finally:
        tokenizer.chat_template = None


def test_shipped_items_are_read():
    path = ROOT / "data" / "vases.jsonl"
    items = read_context_items(path)
    for item in items:
        ranked = [segment for segment in item.segments if segment.ranked]
        assert len(ranked) == 20
        (planted,) = (segment for segment in ranked if segment.name == item.evidence)
        assert item.answer is not None
        word = item.answer.split()[-1].strip(".").lower()
        assert [s for s in ranked if word in s.text.lower()] == [planted]
