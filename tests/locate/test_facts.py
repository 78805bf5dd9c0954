"""Facts: prompts, roles of tokens, and the two objects."""

import json

import pytest

import decomp
from decomp.corpus.spacing import spaced
from decomp.corpus.tokens import beginning_of_sequence
from decomp.io.records import Record
from decomp.locate.facts import ROLES, make_fact, read_facts, roles_of
from tests.conftest import ROOT

ITEM = {
    "relation": "{} lived in the town of",
    "subject": "Mrs. Micawber",
    "target_true": "York",
    "target_false": "Bath",
}


@pytest.fixture(scope="module")
def opened():
    return decomp.load_model("demo-opt")


@pytest.fixture(scope="module")
def tokenizer(opened):
    return opened[1]


def fact_of(tokenizer, bos=2, **changes):
    return make_fact(Record("facts.jsonl, line 1", ITEM | changes), tokenizer, bos)


@pytest.mark.parametrize(
    ("subject", "roles"),
    [
        ("..SSSS..a.", "before before first middle middle last after further further end"),
        (".SS.", "before first last end"),
        ("S..", "last after end"),
        (".S", "before end"),
        ("SS", "first end"),
        ("S", "end"),
        (".SSS", "before first middle end"),
    ],
)
def test_roles(subject, roles):
    names = {"first": "first_subject", "middle": "middle_subject", "last": "last_subject"}
    names |= {"after": "first_after", "end": "last"}
    assert roles_of([c == "S" for c in subject]) == tuple(names.get(role, role) for role in roles.split())
    assert set(roles_of([c == "S" for c in subject])) < set(ROLES)


def test_tokens_and_roles_of_a_prompt(tokenizer):
    fact = fact_of(tokenizer, subject="Elizabeth Bennet", relation="In that year {} lived in the town of")
    assert dict(zip(fact.tokens, fact.roles, strict=True)) == {
        "</s>": "bos",
        "In": "before",
        "Ġthat": "before",
        "Ġyear": "before",
        "ĠElizabeth": "first_subject",
        "ĠBennet": "last_subject",
        "Ġlived": "first_after",
        "Ġin": "further",
        "Ġthe": "further",
        "Ġtown": "further",
        "Ġof": "last",
    }
    assert fact.has_bos
    assert fact.ids[0] == 2


def test_every_token_that_touches_the_subject_is_of_it(tokenizer):
    fact = fact_of(tokenizer, subject="Zoë", bos=None)
    inside = [t for t, role in zip(fact.tokens, fact.roles, strict=True) if role.endswith("subject")]
    assert tokenizer.convert_tokens_to_string(inside) == "Zoë"
    assert not fact.has_bos


def test_prompt_may_be_the_template(tokenizer):
    filled = {"relation": None, "prompt": ITEM["relation"]}
    assert fact_of(tokenizer, **filled).tokens == fact_of(tokenizer).tokens
    assert fact_of(tokenizer, prompt="Mrs. Micawber lived in the town of").tokens == fact_of(tokenizer).tokens


def test_objects_are_asked_at_the_first_token_that_differs(tokenizer):
    plain = fact_of(tokenizer)
    longer = fact_of(tokenizer, target_true="the old York", target_false="the old Bath")
    assert (longer.token, longer.foil) == (plain.token, plain.foil)
    assert longer.tokens == (*plain.tokens, "Ġthe", "Ġold")
    assert longer.roles[-4:] == ("further", "further", "further", "last")


@pytest.mark.parametrize(
    ("prompt", "target", "expected"),
    [
        ("It is", "York", ("It is", " York")),
        ("It is", " York", ("It is", " York")),
        ("It is ", "York", ("It is", " York")),
        ("It is", ", well", ("It is", ", well")),
        ("It is\n", "York", ("It is\n", "York")),
        ("", "York", ("", "York")),
    ],
)
def test_space_before_the_object(prompt, target, expected):
    assert spaced(prompt, target) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relation": "He lived in"}, r"line 1 needs a relation \(or prompt\) with one {}.*it has 'He lived in'"),
        ({"relation": "{} and {}"}, "needs a relation"),
        ({"relation": None}, "it has neither"),
        ({"subject": " "}, "line 1: subject is blank: give some text"),
        ({"subject": 3}, "line 1: subject must be text, it is 3"),
        ({"target_false": "York"}, "target_true 'York' and target_false 'York' must differ"),
        ({"target_false": "York Minster"}, "neither one the beginning of the other"),
        ({"target_true": ""}, "line 1: target_true is blank: give some text"),
        ({"target_false": " "}, "line 1: target_false is blank: give some text"),
    ],
)
def test_bad_items(tokenizer, changes, message):
    with pytest.raises(ValueError, match=message):
        fact_of(tokenizer, **changes)


def test_bad_files(tokenizer, tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"subject": "a", "relation": "{}"}))
    with pytest.raises(ValueError, match=r"line 1 lacks target_true, target_false: it has subject, relation"):
        read_facts(path, tokenizer, None, 512)
    path.write_text(json.dumps(ITEM))
    with pytest.raises(ValueError, match=r"line 1 has 10 tokens, the model has 9 positions: shorten it"):
        read_facts(path, tokenizer, 2, 9)


@pytest.mark.parametrize("name", ["demo-opt", "demo-gpt2"])
def test_shipped_facts(name):
    model, tokenizer = decomp.load_model(name)
    facts = read_facts(ROOT / "data/facts.jsonl", tokenizer, beginning_of_sequence(tokenizer, model.config), 512)
    assert len(facts) == 12
    assert {role for fact in facts for role in fact.roles} == set(ROLES)
