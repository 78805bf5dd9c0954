"""What edits of real code are cut to, at every level."""

import ast
import re
import textwrap

import pytest

import decomp
from decomp.locate.neurons.blocks import brace_blocks, enclosing_block, indented_blocks, python_blocks
from decomp.locate.neurons.spans import CUTS, changed, cut


@pytest.fixture(scope="module")
def tokenizer():
    return decomp.load_model("demo-gpt2")[1]


PYTHON = '''\
import re


@cache
def parse(text, strict=False):
    """Pairs of a text: {not a block}"""
    pairs = {}
    for line in text.split("\\n"):
        if ":" not in line:
            continue
        key, value = line.split(":", 1)
        pairs[key] = value
    return pairs


class Table:
    def size(self):
        return len(self.rows)


LIMIT = 10
'''
JAVASCRIPT = """\
// Totals of a cart: don't { count } these
function total(items, rate) {
  let sum = 0;
  for (let i = 0; i < items.length; i++) {
    sum += items[i].price; // a brace: }
  }
  if (rate > 1 && /[{"]/.test(name)) {
    sum *= rate;
  } else {
    log({ name: 'total {', value: sum });
  }
  return `${sum} {`;
}

const names = items.map((item) => {
  return item.name;
});

class Cart extends Base {
  add(item) { this.items.push(item); return this; }
  size() {
    return this.items.length;
  }
}
"""


def of(text, blocks):
    return [text[b.start : b.stop] for b in sorted(blocks, key=lambda b: b.start)]


def test_python_blocks():
    heads = [block.lstrip().split("\n")[0] for block in of(PYTHON, python_blocks(PYTHON))]
    assert heads == [
        "@cache",
        'for line in text.split("\\n"):',
        'if ":" not in line:',
        "class Table:",
        "def size(self):",
    ]
    for block in of(PYTHON, python_blocks(PYTHON)):
        assert block.endswith("\n")
        (statement,) = ast.parse(textwrap.dedent(block)).body
        assert hasattr(statement, "body")


def test_indented_blocks_of_python_that_does_not_parse():
    broken = PYTHON.replace("def parse(text, strict=False):", "def parse(text, strict=False:")
    assert list(python_blocks(broken)) == []
    expected = [block.removeprefix("@cache\n") for block in of(PYTHON, python_blocks(PYTHON))]
    assert of(broken, indented_blocks(broken))[1:] == expected[1:]
    assert of("if a:  # why\n    b\n\n\nelse:\n    c", indented_blocks("if a:  # why\n    b\n\n\nelse:\n    c")) == [
        "if a:  # why\n    b\n",
        "else:\n    c",
    ]


def test_brace_blocks():
    heads = [
        re.sub(r"\s*\{.*", "", block.strip(), flags=re.DOTALL) for block in of(JAVASCRIPT, brace_blocks(JAVASCRIPT))
    ]
    assert heads == [
        "function total(items, rate)",
        "for (let i = 0; i < items.length; i++)",
        "if (rate > 1 && /[",
        "else",
        "const names = items.map((item) =>",
        "class Cart extends Base",
        "add(item)",
        "size()",
    ]
    blocks = dict(zip(heads, of(JAVASCRIPT, brace_blocks(JAVASCRIPT)), strict=True))
    assert blocks["const names = items.map((item) =>"].endswith("return item.name;\n});\n")
    assert blocks["if (rate > 1 && /["].endswith("sum *= rate;\n  }")
    assert blocks["else"] == "else {\n    log({ name: 'total {', value: sum });\n  }\n"
    assert blocks["add(item)"] == "  add(item) { this.items.push(item); return this; }\n"
    assert blocks["function total(items, rate)"].endswith("return `${sum} {`;\n}\n")


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("int f(int a) {\n  while (a) { a--; }\n  int b[] = {1, 2};\n}\n", ["int f(int a)", "while (a)"]),
        ("x = { f() { return 1; }, g: function () { return 2; } };", ["f()", "g: function ()"]),
        ("export default async (a) => {\n  await a;\n};\n", ["export default async (a) =>"]),
        ("do { x(); } while (y);", ["do"]),
        ("return { a: 1 };", []),
        ("a = b ? { c } : d;", []),
        ("/* { */ f(); // {\n'{'", []),
        ("}} ) f() { x }", ["f()"]),
        ("{ ( [", []),
    ],
)
def test_brace_blocks_and_objects(text, heads):
    assert [block.strip().split("{")[0].strip() for block in of(text, brace_blocks(text))] == heads


def test_smallest_block_wins():
    start = PYTHON.index("continue")
    block = enclosing_block(PYTHON, start, start + 8)
    assert PYTHON[block.start : block.stop] == '        if ":" not in line:\n            continue\n'
    assert enclosing_block(PYTHON, PYTHON.index("LIMIT"), len(PYTHON)) is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [("abcd", "abxd", (2, 1)), ("aa", "aaa", (2, 0)), ("abc", "ab", (2, 0)), ("", "x", (0, 0)), ("aba", "a", (1, 0))],
)
def test_changed_is_the_smallest_stretch(old, new, expected):
    assert changed(old, new) == expected
    start, end = expected
    assert old[:start] == new[:start]
    assert old[len(old) - end :] == new[len(new) - end :]


# Name: text, what is replaced by what, then (old, new) at the levels of lines and blocks.
FOR = PYTHON[PYTHON.index("    for line") : PYTHON.index("    return pairs")]
IF = FOR[FOR.index("        if") : FOR.index("        pairs")]
SIZE = "    def size(self):\n        return len(self.rows)\n"
JS_FOR = JAVASCRIPT[JAVASCRIPT.index("  for (let") : JAVASCRIPT.index("  if (rate")]
ARROW = JAVASCRIPT[JAVASCRIPT.index("const names") : JAVASCRIPT.index("\nclass Cart")]
ADD = "  add(item) { this.items.push(item); return this; }\n"
EDITS = {
    "replaced word": (
        PYTHON,
        "line.split(",
        "line.partition(",
        ('        key, value = line.split(":", 1)\n', '        key, value = line.partition(":", 1)\n'),
        (FOR, FOR.replace("line.split(", "line.partition(")),
    ),
    "several lines": (
        PYTHON,
        '        key, value = line.split(":", 1)\n        pairs[key] = value\n',
        "        key, _, value = line.partition(':')\n        if key:\n            pairs[key.strip()] = value\n",
        (
            '        key, value = line.split(":", 1)\n        pairs[key] = value\n',
            "        key, _, value = line.partition(':')\n        if key:\n            pairs[key.strip()] = value\n",
        ),
        (
            FOR,
            FOR[: FOR.index("        key")]
            + "        key, _, value = line.partition(':')\n        if key:\n            pairs[key.strip()] = value\n",
        ),
    ),
    "inserted line": (
        PYTHON,
        "        return len(self.rows)\n",
        "        self.load()\n        return len(self.rows)\n",
        ("", "        self.load()\n"),
        (SIZE, SIZE.replace("        return", "        self.load()\n        return")),
    ),
    "changed indentation": (
        PYTHON,
        "            continue\n        key",
        "            continue\n            key",
        ('        key, value = line.split(":", 1)\n', '            key, value = line.split(":", 1)\n'),
        (IF, IF.replace("        key", "            key")),
    ),
    "inserted function": (
        PYTHON,
        "LIMIT = 10\n",
        "def empty():\n    return Table()\n\n\nLIMIT = 10\n",
        ("", "def empty():\n    return Table()\n\n\n"),
        ("", "def empty():\n    return Table()\n\n\n"),
    ),
    "outside of blocks": (
        PYTHON,
        "LIMIT = 10",
        "LIMIT = 100",
        ("LIMIT = 10\n", "LIMIT = 100\n"),
        ("LIMIT = 10\n", "LIMIT = 100\n"),
    ),
    "changed header": (
        PYTHON,
        "def size(self):",
        "def size(self, deep=False):",
        ("    def size(self):\n", "    def size(self, deep=False):\n"),
        (SIZE, SIZE.replace("(self)", "(self, deep=False)", 1)),
    ),
    "javascript expression": (
        JAVASCRIPT,
        "items[i].price;",
        "items[i].price * items[i].count;",
        (
            "    sum += items[i].price; // a brace: }\n",
            "    sum += items[i].price * items[i].count; // a brace: }\n",
        ),
        (JS_FOR, JS_FOR.replace("items[i].price;", "items[i].price * items[i].count;")),
    ),
    "javascript lines": (
        JAVASCRIPT,
        "  return item.name;\n",
        "  const { name } = item;\n  return name.trim();\n",
        ("  return item.name;\n", "  const { name } = item;\n  return name.trim();\n"),
        (ARROW, ARROW.replace("  return item.name;\n", "  const { name } = item;\n  return name.trim();\n")),
    ),
    "javascript inside one line": (
        JAVASCRIPT,
        "push(item)",
        "push(item, this)",
        (ADD, ADD.replace("push(item)", "push(item, this)")),
        (ADD, ADD.replace("push(item)", "push(item, this)")),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_lines_and_blocks(tokenizer, name):
    text, old, new, lines, block = EDITS[name]
    assert text.count(old) == 1
    edited = text.replace(old, new)
    for level, (gone, come) in (("line", lines), ("block", block)):
        found = CUTS[level](text, edited, tokenizer)
        assert (found.old, found.new) == (gone, come)


@pytest.mark.parametrize("level", CUTS)
@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("way", ["there", "back"])
def test_a_cut_can_be_put_back(tokenizer, level, name, way):
    """before + old + after and before + new + after are the two texts; levels are nested."""
    text, old, new, *_ = EDITS[name]
    pre, post = text, text.replace(old, new)
    if way == "back":
        pre, post = post, pre
    found = CUTS[level](pre, post, tokenizer)
    assert found.before + found.old + found.after == pre
    assert found.before + found.new + found.after == post
    assert found.masked == found.before + "[MASK]" + found.after
    for part, ids in ((found.before, found.before_ids), (found.old, found.old_ids), (found.new, found.new_ids)):
        assert tokenizer.decode(ids) == part


def test_tokens_are_the_smallest_run(tokenizer):
    found = cut("and then the old man said\n", "and then the young man said\n", "token", tokenizer)
    assert (found.level, found.old, found.new) == ("token", " old", " young")
    assert found.before_ids == tokenizer("and then the", add_special_tokens=False)["input_ids"]
    assert found.masked == "and then the[MASK] man said\n"


def test_insertion_of_tokens(tokenizer):
    found = cut("f(a)\n", "f(a, b)\n", "token", tokenizer)
    assert (found.level, found.old, found.new) == ("token", "", ", b")
    contrasted = cut("f(a)\n", "f(a, b)\n", "token", tokenizer, needs_old=True)
    assert (contrasted.level, contrasted.old, contrasted.new) == ("line", "f(a)\n", "f(a, b)\n")


def test_a_deletion_is_cut_as_what_is_left_around_it(tokenizer):
    inside = cut("f(a, b)\ng()\n", "f(a)\ng()\n", "token", tokenizer)
    assert (inside.level, inside.old, inside.new) == ("line", "f(a, b)\n", "f(a)\n")
    whole = cut(PYTHON, PYTHON.replace("        pairs[key] = value\n", ""), "token", tokenizer)
    assert (whole.level, whole.old, whole.new) == ("block", FOR, FOR.replace("        pairs[key] = value\n", ""))
    whole = cut(JAVASCRIPT, JAVASCRIPT.replace("    sum *= rate;\n", ""), "line", tokenizer)
    assert (whole.level, whole.new) == ("block", '  if (rate > 1 && /[{"]/.test(name)) {\n  }')


def test_nothing_to_cut(tokenizer):
    with pytest.raises(ValueError, match="pre_text and post_text are the same"):
        cut("a", "a", "line", tokenizer)
    with pytest.raises(ValueError, match="post_text is empty: nothing is left to be predicted"):
        cut("a\n", "", "token", tokenizer)
    with pytest.raises(ValueError, match="pre_text is empty: nothing is left to contrast with"):
        cut("", "a\n", "line", tokenizer, needs_old=True)
    assert cut("", "a\n", "line", tokenizer).new == "a\n"


def test_whole_lines_outside_of_blocks_are_cut_with_a_neighbor(tokenizer):
    deleted = cut("a\nb\nc\n", "a\nc\n", "token", tokenizer)
    assert (deleted.level, deleted.before, deleted.old, deleted.new) == ("neighbor", "a\n", "b\nc\n", "c\n")
    last = cut("a\nb\n", "a\n", "line", tokenizer)
    assert (last.level, last.before, last.old, last.new) == ("neighbor", "", "a\nb\n", "a\n")
    imported = cut(PYTHON, "import os\n" + PYTHON, "line", tokenizer, needs_old=True)
    assert (imported.level, imported.old, imported.new) == ("neighbor", "import re\n", "import os\nimport re\n")


def test_code_with_warnings_and_other_line_ends(tokenizer):
    text = "def f():\r\n    return '\\d'\r\n\r\n\r\ndef g():\r\n    pass\r\n"
    found = CUTS["block"](text, text.replace("\\d", "\\w"), tokenizer)
    assert found.new == "def f():\r\n    return '\\w'\r\n"
