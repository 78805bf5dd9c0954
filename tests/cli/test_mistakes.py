"""What a person does wrong is refused in one line, before torch is imported, which takes seconds."""

import json
import subprocess
import sys

import pytest

from tests.commands import CORPUS, MODEL
from tests.conftest import ROOT

RUN = """
import json, sys
sys.modules["torch"] = None
from click.testing import CliRunner
from decomp.cli.main import main
for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(main, arguments)
    shown = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    crash = "" if isinstance(result.exception, SystemExit) else repr(result.exception)
    print(json.dumps([result.exit_code, shown, result.stdout, crash]))
"""

MISTAKES = {
    # missing files
    ("score", "nowhere.txt", MODEL): "can't read nowhere.txt: No such file or directory",
    ("decompose", "nowhere.txt", MODEL, "8"): "can't read nowhere.txt: No such file or directory",
    ("contrast", "nowhere.csv", MODEL): "can't read nowhere.csv: No such file or directory",
    ("table", "nowhere.tsv"): "can't read nowhere.tsv: No such file or directory",
    ("show", "nowhere.tsv"): "can't read nowhere.tsv: No such file or directory",
    ("plot", "nowhere.tsv", "-o", "a.png"): "can't read nowhere.tsv: No such file or directory",
    ("report", "nowhere.tsv"): "can't read nowhere.tsv: No such file or directory",
    ("layers", "nowhere.jsonl", MODEL): "can't read nowhere.jsonl: No such file or directory",
    ("neurons", "nowhere.jsonl", MODEL): "can't read nowhere.jsonl: No such file or directory",
    ("neurons", "check", "demo-facts.jsonl", MODEL, "nowhere.tsv"): "can't read nowhere.tsv",
    ("edges", "nowhere.json", MODEL, "--mask-value", "0"): "can't read nowhere.json: No such file or directory",
    ("evaluate", "faithfulness", "nowhere.txt", MODEL): "can't read nowhere.txt: No such file or directory",
    ("evaluate", "alignment", "nowhere.csv", MODEL): "can't read nowhere.csv: No such file or directory",
    ("score", CORPUS, MODEL, "--words", "nowhere.tsv"): "can't read nowhere.tsv: No such file or directory",
    ("status", "nowhere"): "nowhere",
    ("deltalp", "x_0", MODEL, "-o", "no/such/x.tsv"): "can't write into no/such: No such file or directory",
    # files that are not what they should be
    ("score", "empty.txt", MODEL): "empty.txt has no text",
    ("score", "latin.txt", MODEL): "latin.txt is not UTF-8: invalid byte at offset 1; convert it first",
    ("decompose", "latin.txt", MODEL, "8"): "latin.txt is not UTF-8",
    ("score", "corpus.csv", MODEL): "has no text in 'text': it has id, body; say which field it is with --text-field",
    ("table", "empty.tsv"): "empty.tsv lacks the columns article",
    ("table", "folder"): "folder",
    ("show", "folder"): "folder",
    ("show", "empty.txt"): "empty.txt must be one of tsv, csv, jsonl, parquet, by its suffix",
    ("plot", "empty.tsv", "-o", "a.png"): "empty.tsv lacks the columns",
    ("layers", "facts.jsonl", MODEL): "facts.jsonl, line 1 needs a relation (or prompt) with one {} where the subject",
    ("neurons", "edit.jsonl", MODEL): "edit.jsonl, line 1 must have pre_text, post_text; or subject, target_true",
    ("neurons", "prompt.jsonl", MODEL, "--contrast"): "prompt.jsonl, line 1 has no foil, which --contrast needs",
    ("neurons", "check", "edit.jsonl", MODEL, "corpus.csv"): "edit.jsonl, line 1 must have pre_text, post_text",
    ("edges", "pairs.json", MODEL, "--mask-value", "0"): "pairs.json, prompt 0: 'corrupt' must be a string, it is null",
    ("edges", "check", "corpus.csv", "pairs.json", MODEL): "pairs.json, prompt 0: 'corrupt' must be a string",
    (
        "edges",
        "demo-pronouns.json",
        MODEL,
        "--mask-value",
        "0",
        "--batch-by",
        "x",
    ): "prompt 0 has no 'x', which batches",
    ("contrast", "corpus.csv", MODEL): "corpus.csv, line 2 lacks prompt, target, foil: it has id, body",
    ("context", "edit.jsonl", MODEL): "edit.jsonl, line 1",
    ("evaluate", "alignment", "corpus.csv", MODEL): "corpus.csv, line 2 lacks prompt, target, foil",
    ("evaluate", "context", "edit.jsonl", MODEL): "edit.jsonl, line 1",
    (
        "score",
        CORPUS,
        MODEL,
        "--min-distance",
        "5",
        "--max-distance",
        "3",
    ): "no source is at least 5 and at most 3 back",
    # models
    ("score", CORPUS, "demo-otp"): "can't load model 'demo-otp': did you mean demo-opt?",
    ("score", "--text", "A text.", "demo-otp"): "can't load model 'demo-otp': did you mean demo-opt?",
    ("report", "--text", "A text.", "demo-otp"): "can't load model 'demo-otp': did you mean demo-opt?",
    ("score", CORPUS, ""): "the model has no name: give a hub id, a folder, or one of demo-opt",
    ("score", CORPUS, "gpt2"): "(it is not on this machine, and the hub is not to be asked",
    ("score", "run", MODEL): "run is the folder of a run, and no corpus: decomp table run writes its table",
    ("decompose", "run", MODEL, "3"): "run is the folder of a run, and no corpus",
    ("score", "--text", " ", MODEL): "--text has no text: give some",
    ("demo", "demo-gtp2"): "unknown demo model 'demo-gtp2': did you mean demo-gpt2?",
    ("score", CORPUS, "folder"): "can't load model 'folder', the folder must hold config.json",
    ("score", CORPUS, "bert"): "models of type 'bert' can't be decomposed: supported are opt",
    ("score", CORPUS, "broken"): "can't load model 'broken', the folder must hold config.json",
    ("score", CORPUS, "nobody/nothing"): "(it is not on this machine, and the hub is not to be asked",
    ("score", CORPUS, "./nowhere"): "can't load model './nowhere', expected a hub id, a folder",
    ("score", CORPUS, "none.gguf"): "none.gguf",
    # names and values
    ("scoer", CORPUS, MODEL): "Did you mean 'score'?",
    ("evaluate", "faithfull", CORPUS, MODEL): "Did you mean 'faithfulness'?",
    ("score", CORPUS, MODEL, "--mesure", "delta_lp"): "'--measure'",
    ("score", CORPUS, MODEL, "--measure", "delta_pl"): "unknown measure 'delta_pl': did you mean delta_lp?",
    ("contrast", "demo-contrast.csv", MODEL, "--measure", "occlussion"): "did you mean occlusion?",
    ("score", CORPUS, MODEL, "--function", "log_prob"): "unknown function 'log_prob': did you mean log2_prob?",
    ("score", CORPUS, MODEL, "--memory", "lots"): "memory must be a positive amount such as 800MiB",
    ("score", CORPUS, MODEL, "--device", "gpu"): "unknown device 'gpu': choose one of cpu, cuda",
    ("score", CORPUS, MODEL, "--dtype", "float31"): "'float31' is not one of 'float32', 'float64'",
    ("score", CORPUS, MODEL, "--decomposition-length", "0"): "0 is not in the range x>=1",
    ("decompose", CORPUS, MODEL, "0"): "0 is not in the range x>=1",
    ("decompose", CORPUS, MODEL, "eight"): "'eight' is not a valid integer range",
    ("score", CORPUS, MODEL, "--target", "-2"): "expected a position in the article, from 0, a span",
    ("score", CORPUS, MODEL, "--shard", "9/3", "--run", "r"): "9/3",
    # what does not go together
    ("score", CORPUS, MODEL, "--text", "A text."): "give either INPUT_FILE or --text, not both",
    ("score",): "missing argument: expected INPUT_FILE MODEL, or --text TEXT MODEL",
    ("score", CORPUS, MODEL, "--max-new-tokens", "3"): "--max-new-tokens continues a --text: give one",
    ("score", CORPUS, MODEL, "--shard", "1/3"): "--shard and --engine ray need a folder for their parts: give --run",
    (
        "score",
        "kept.txt",
        MODEL,
        "--text-field",
        "body",
    ): "kept.txt has no columns: leave out --text-field and --id-field",
    ("decompose", "kept.txt", MODEL, "3", "--id-field", "n"): "kept.txt has no columns: leave out --text-field",
    ("score", "folder", MODEL, "--text-field", "body"): "folder has no columns: leave out --text-field",
    ("score", "--text", "A text.", MODEL, "--text-field", "body"): "--text-field describes INPUT_FILE: leave it out",
    (
        "score",
        "--text",
        "A text.",
        MODEL,
        "--max-new-tokens",
        "2",
        "--temperature",
        "2",
    ): "--temperature needs --sample",
    ("score", CORPUS, MODEL, "--temperature", "2"): "--temperature is for continuing a --text: leave it out",
    ("score", CORPUS, MODEL, "--num-workers", "2"): "--num-workers needs --engine ray: give that too, or leave it out",
    (
        "contrast",
        "demo-contrast.csv",
        MODEL,
        "--ray-address",
        "auto",
    ): "--ray-address needs --engine ray: give that too",
    ("evaluate", "agreement", CORPUS, MODEL, "--num-workers", "2"): "--num-workers needs --engine ray: give that too",
    ("edges", "demo-pronouns.json", MODEL, "--mask-value", "2"): "2.0 is not in the range 0<=x<=1",
    ("layers", "demo-facts.jsonl", MODEL, "--aggregate", "--confidence", "1"): "1.0 is not in the range 0<x<1",
    ("layers", "demo-facts.jsonl", MODEL, "--confidence", "0.9"): "--confidence needs --aggregate",
    ("contrast", "--prompt", "A", MODEL): "--prompt, --target and --foil go together: give all three",
    ("contrast", "demo-contrast.csv", MODEL, "--prompt", "A", "--target", "b", "--foil", "c"): "not both",
    ("report", "--text", "A text.", MODEL, "more.tsv"): "with --text give the model alone",
    ("report",): "missing argument: expected INPUTS, or --text TEXT MODEL",
    ("table", "empty.tsv", "--predictors", "--summary"): "--predictors are of all sources: leave out --summary",
    ("deltalp", "x_0", MODEL, "--top", "3"): "the text format has all rows: give --format tsv",
    ("edges", "demo-pronouns.json", MODEL): "give a mask value or a number of integrated gradient samples",
    (
        "edges",
        "demo-pronouns.json",
        MODEL,
        "--mask-value",
        "0",
        "--integrated-gradient-samples",
        "3",
    ): "give a mask value or a number of integrated gradient samples, exactly one of the two",
    (
        "edges",
        "demo-pronouns.json",
        MODEL,
        "--integrated-gradient-samples",
        "0",
    ): "the number of integrated gradient samples must be at least 1, not 0",
    ("edges", "check", "kept.tsv", "demo-pronouns.json", MODEL, "--clean-corrupt", "both"): "only means are over both",
    (
        "edges",
        "check",
        "kept.tsv",
        "demo-pronouns.json",
        MODEL,
        "--keep",
        "3",
        "--keep",
        "3",
    ): "--keep 3 is given twice",
    ("edges", "check", "kept.tsv", "demo-pronouns.json", MODEL, "--keep", "-1"): "-1 is not in the range x>=0",
    ("layers", "demo-facts.jsonl", MODEL, "--function", "log_prob"): "unknown function 'log_prob': did you mean",
    (
        "layers",
        "demo-facts.jsonl",
        MODEL,
        "--measure",
        "direct",
        "--function",
        "log2_prob",
    ): "direct shares add up to a function that is linear in the logits, log2_prob is not",
    ("layers", "demo-facts.jsonl", MODEL, "--component", "mlp", "--component", "mlp"): "--component mlp is given twice",
    ("layers", "demo-facts.jsonl", MODEL, "--measure", "direct", "--reduce", "norm"): "direct shares are numbers",
    (
        "neurons",
        "demo-facts.jsonl",
        MODEL,
        "--quadrature",
        "linspace",
        "--steps",
        "1",
    ): "linspace has both ends among its nodes: use 2 steps or more",
    (
        "neurons",
        "demo-edits.jsonl",
        MODEL,
        "--mask-level",
        "line",
        "--mask-level",
        "line",
    ): "--mask-level line is given twice",
    (
        "neurons",
        "check",
        "demo-facts.jsonl",
        MODEL,
        "kept.tsv",
        "--factor",
        "nan",
    ): "--factor must be a finite number, not nan",
    (
        "score",
        CORPUS,
        MODEL,
        "--strongest",
        "2",
    ): "--strongest (strongest=) is for single targets and spans: give --target",
    (
        "score",
        CORPUS,
        MODEL,
        "--strongest",
        "2",
        "--target",
        "last",
        "--measure",
        "attention",
    ): "--strongest (strongest=) is for delta_lp alone",
    ("score", CORPUS, MODEL, "--corrected"): "--corrected is for words: give --unit word",
    (
        "score",
        CORPUS,
        MODEL,
        "--field",
        "word=token",
    ): "--field (fields=) names columns of the list of words: give --words",
    ("score", CORPUS, MODEL, "--unit", "word", "--target", "3"): "leave out --unit word and --span",
    (
        "score",
        CORPUS,
        MODEL,
        "--unit",
        "word",
        "--measure",
        "gradient_norm",
    ): "gradient_norm of tokens does not add up to that of words",
    ("score", CORPUS, MODEL, "--unit", "word", "--sources", "token"): "sources of words are words or larger",
    (
        "score",
        CORPUS,
        MODEL,
        "--sources",
        "word",
        "--measure",
        "gradient_norm",
    ): "does not add up to that of groups of tokens",
    ("score", CORPUS, MODEL, "--sources", "segment"): "has no named segments",
    (
        "score",
        CORPUS,
        MODEL,
        "--measure",
        "attention",
        "--span",
        "2",
    ): "attention of tokens does not add up to that of words",
    (
        "score",
        CORPUS,
        MODEL,
        "--measure",
        "attention",
        "--measure",
        "attention",
    ): "the measure attention is asked for more than once",
    (
        "score",
        CORPUS,
        MODEL,
        "--measure",
        "attention",
        "--function",
        "logit",
    ): "attention explains no function of the logits",
    ("score", CORPUS, MODEL, "--function", "contrast_logit"): "contrasts the next token with a foil, and there is none",
    (
        "score",
        CORPUS,
        MODEL,
        "--quadrature",
        "trapezoid",
        "--steps",
        "1",
    ): "trapezoid has both ends among its nodes: use 2 steps or more",
    ("score", CORPUS, MODEL, "--stride", "0"): "0 is not in the range x>=1",
    ("score", CORPUS, MODEL, "--words", "corpus.csv"): "corpus.csv",
    ("decompose", CORPUS, MODEL, "8", "--sources", "segment"): "has no named segments",
    ("contrast", "demo-contrast.csv", MODEL, "--function", "logit"): "logit is no contrast of target and foil",
    (
        "contrast",
        "demo-contrast.csv",
        MODEL,
        "--measure",
        "attention",
        "--function",
        "contrast_logit",
    ): "attention explains no function",
    (
        "contrast",
        "demo-contrast.csv",
        MODEL,
        "--measure",
        "gradient_norm",
        "--sources",
        "word",
    ): "does not add up to that of groups",
    (
        "contrast",
        "demo-contrast.csv",
        MODEL,
        "--measure",
        "decomposed_logit",
        "--multi-token",
        "sum",
    ): "use --multi-token first",
    ("context", "demo-vases.jsonl", MODEL, "--measure", "gradient_norm"): "does not add up to that of groups of tokens",
    (
        "evaluate",
        "context",
        "demo-vases.jsonl",
        MODEL,
        "--measure",
        "gradient_norm",
    ): "does not add up to that of groups of tokens",
    ("evaluate", "faithfulness", CORPUS, MODEL, "--function", "contrast_logit"): "contrasts the next token with a foil",
    ("evaluate", "agreement", CORPUS, MODEL, "--function", "logit"): "attention explains no function of the logits",
    (
        "evaluate",
        "alignment",
        "demo-evidence.csv",
        MODEL,
        "--function",
        "logit",
    ): "logit is no contrast of target and foil",
    (
        "report",
        "--text",
        "A text.",
        MODEL,
        "--measure",
        "attention",
        "--function",
        "logit",
    ): "attention explains no function of the logits",
    ("deltalp", "x_0", MODEL, "--output-dir", "folder"): "no decomposition 'x_0' in folder",
    # outputs
    ("score", CORPUS, MODEL, "-o", "no/such/table.tsv"): "can't write into no/such: No such file or directory",
    ("score", CORPUS, MODEL, "-o", "folder"): "folder is a folder: give the name of a file",
    ("score", CORPUS, MODEL, "-o", "table.xls"): ".xls is no format of a table: use one of .tsv, .csv",
    ("score", CORPUS, MODEL, "-o", "kept.tsv"): "kept.tsv exists: give --overwrite",
    ("score", "kept.txt", MODEL, "-o", "kept.txt", "--format", "tsv", "--overwrite"): "kept.txt is an input",
    ("score", CORPUS, MODEL, "--run", "kept.tsv"): "can't make the output folder kept.tsv",
    ("contrast", "demo-contrast.csv", MODEL, "-o", "kept.tsv"): "kept.tsv exists: give --overwrite",
    ("evaluate", "faithfulness", CORPUS, MODEL, "-o", "kept.tsv"): "kept.tsv exists: give --overwrite",
    ("evaluate", "alignment", "demo-evidence.csv", MODEL, "-o", "folder"): "folder is a folder",
    ("evaluate", "agreement", CORPUS, MODEL, "-o", "no/such.tsv"): "can't write into no: No such file or directory",
    ("layers", "demo-facts.jsonl", MODEL, "-o", "kept.tsv"): "kept.tsv exists: give --overwrite",
    ("layers", "demo-facts.jsonl", MODEL, "--plot", "a.bmp"): "a.bmp",
    ("neurons", "demo-facts.jsonl", MODEL, "-o", "kept.tsv"): "kept.tsv exists: give --overwrite",
    ("neurons", "check", "demo-facts.jsonl", MODEL, "kept.tsv", "-o", "kept.tsv"): "kept.tsv is an input",
    ("edges", "demo-pronouns.json", MODEL, "--mask-value", "0", "-o", "kept.tsv"): "kept.tsv exists: give --overwrite",
    ("edges", "check", "kept.tsv", "demo-pronouns.json", MODEL, "-o", "folder"): "folder is a folder",
    ("decompose", CORPUS, MODEL, "8", "--output-dir", "kept.tsv"): "can't make the output folder kept.tsv",
    ("report", "--text", "A text.", MODEL, "-o", "kept.tsv"): "kept.tsv",
    ("plot", "kept.tsv", "-o", "picture.bmp"): "picture.bmp",
}
"""What is typed, and a part of the line that answers it. In a folder with the files of `folder`."""

ITEMS = {
    "facts.jsonl": {"relation": "The capital", "subject": "France", "target_true": "Paris", "target_false": "Rome"},
    "edit.jsonl": {"pre_text": "A text."},
    "prompt.jsonl": {"prompt": "A", "target": "text"},
    "pairs.json": {"prompts": [{"clean": "A text."}]},
}
"""Files of items that lack something."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("folder", "bert", "broken"):
        (folder / name).mkdir()
    (folder / "empty.txt").touch()
    (folder / "empty.tsv").touch()
    (folder / "latin.txt").write_bytes(b"A\xe9")
    (folder / "corpus.csv").write_text("id,body\n1,A text.\n", "utf-8")
    for name, item in ITEMS.items():
        (folder / name).write_text(json.dumps(item), "utf-8")
    (folder / "kept.tsv").write_text("kept", "utf-8")
    (folder / "kept.txt").write_text("A text.", "utf-8")
    (folder / "bert" / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    (folder / "run" / "parts").mkdir(parents=True)
    (folder / "run" / "manifest.json").write_text("{}", "utf-8")
    (folder / "broken" / "config.json").write_text("{", "utf-8")
    return folder


@pytest.fixture(scope="module")
def answers(folder):
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    ended = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([list(arguments) for arguments in MISTAKES]),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return dict(zip(MISTAKES, map(json.loads, ended.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("arguments", MISTAKES, ids=lambda arguments: " ".join(arguments).replace(str(ROOT), ""))
def test_mistakes(arguments, answers):
    code, shown, printed, crash = answers[arguments]
    assert not crash
    assert (code, printed) == (2, "")
    (line,) = shown
    assert MISTAKES[arguments] in line


@pytest.mark.usefixtures("answers")
def test_nothing_is_lost_or_left(folder):
    assert (folder / "kept.tsv").read_text("utf-8") == "kept"
    assert (folder / "kept.txt").read_text("utf-8") == "A text."
    left = {path.name for path in folder.iterdir()}
    assert left - {"hub"} == {
        *(
            "folder",
            "bert",
            "broken",
            "run",
            "empty.txt",
            "empty.tsv",
            "latin.txt",
            "corpus.csv",
            "kept.tsv",
            "kept.txt",
            *ITEMS,
        )
    }
