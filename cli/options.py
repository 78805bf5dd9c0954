"""Options that several commands share."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from decomp.cli import kinds
from decomp.cli.layout import Decorator, section
from decomp.corpus.targets import ALL, parse_targets
from decomp.measures.conventions import CONVENTIONS, Convention
from decomp.measures.registry import CONTRAST_FUNCTIONS, PLAIN_FUNCTIONS
from decomp.measures.request import AttentionOptions, GradientOptions, OcclusionOptions
from decomp.models.sources import check_name

if TYPE_CHECKING:
    from decomp.runs.run import Shard

F = TypeVar("F", bound=Callable[..., Any])


def together(*decorators: Decorator) -> Decorator:
    """Return several options as one decorator; the help shows them in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def article_position(value: str) -> int | str:
    """Return a position in an article, or `last`. BadParameter for anything else."""
    if value == "last" or value.isdecimal():
        return value if value == "last" else int(value)
    raise click.BadParameter(f"expected a position in the article, from 0, or last, not {value!r}")


def article_targets(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the targets that were given, checked, or all if none was.

    BadParameter for one that is malformed, or given twice.
    """
    try:
        parse_targets(values or (ALL,))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return values or (ALL,)


def share_of_work(value: "str | Shard") -> "Shard":
    """Return the shard that a text such as 3/8 names. BadParameter for anything else."""
    from decomp.runs.run import Shard, parse_shard

    try:
        return value if isinstance(value, Shard) else parse_shard(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def refuse_unless(holds: bool, needed: str, *names: str) -> None:
    """Raise UsageError for those of the parameters `names` that were given on the command line, unless `holds`."""
    context = click.get_current_context()
    for parameter in () if holds else context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise click.UsageError(f"{max(parameter.opts, key=len)} {needed}")


def option(*names: str, help: str, default: Any = None, **settings: Any) -> Callable[[F], F]:
    """Return an option whose help says its default, if it has one."""
    return click.option(*names, default=default, show_default=default not in (None, ()), help=help, **settings)


def choice(
    flag: str, values: Sequence[str], default: str | None, help: str, name: str | None = None
) -> Callable[[F], F]:
    """Return an option that takes one of several values; `name` is the parameter's, if not that of the flag."""
    return option(*filter(None, (flag, name)), type=click.Choice(values), default=default, help=help)


def choices(flag: str, name: str, values: Sequence[str], default: str, help: str) -> Callable[[F], F]:
    """Return an option that takes one or more of several values, each time it is given one."""
    return option(flag, name, type=click.Choice(values), multiple=True, default=(default,), help=help)


def whole_number(
    flag: str, help: str, default: int | None = None, name: str | None = None, least: int = 1, most: int | None = None
) -> Callable[[F], F]:
    """Return an option that takes a whole number from `least` to `most`."""
    return option(*filter(None, (flag, name)), type=click.IntRange(least, most), default=default, help=help)


def share(flag: str, default: float, help: str) -> Callable[[F], F]:
    """Return an option that takes a number from 0 to 1."""
    return option(flag, type=click.FloatRange(0, 1), default=default, help=help)


def seed_of(what: str) -> Callable[[F], F]:
    """Return the option --seed of something that is drawn at random."""
    return option("--seed", type=int, default=0, help=f"Seed of {what}.")


def field_of(family: type, name: str, help: str) -> Callable[[F], F]:
    """Return the option of a field of a request: its name, default, and choices are the field's."""
    defaults: dict[str, Any] = {field.name: field.default for field in fields(family)}
    flag, hint, default = "--" + name.replace("_", "-"), get_type_hints(family)[name], defaults[name]
    if hint is bool:
        return click.option(flag, is_flag=True, help=help)
    if hint is int:
        return whole_number(flag, help, default)
    if get_origin(hint) is Literal:
        return choice(flag, get_args(hint), default, help)
    return option(flag, default=default, help=help)


FILE = click.Path(path_type=Path)
input_file = click.argument("input_file", type=kinds.CORPUS)
model = click.argument("model", type=kinds.MODEL)

placement_options = together(
    option("--device", type=kinds.DEVICE, default="cpu", help="Torch device: cpu, cuda, cuda:1, mps."),
    choice(
        "--dtype",
        ["float32", "float64", "bfloat16", "float16"],
        "float32",
        "Precision of the model and of all that is computed.",
    ),
    click.option("--revision", help="Branch, tag or commit of a hub model."),
)
model_options = section(
    "Model",
    placement_options,
    choice("--activation-rule", ["tangent", "secant"], "tangent", "How activations are linearised; the same for ReLU."),
    choice(
        "--gate-rule",
        ["frozen", "half"],
        "half",
        "How gated MLPs are linearised: with the gate frozen, or half of the product given to each of its two factors.",
    ),
)

bos = click.option("--bos/--no-bos", default=True, help="Begin texts with the beginning-of-sequence token (default).")

window_options = section(
    "Windows",
    whole_number("--stride", "Tokens from one window's start to the next one's.  [default: half the positions]"),
    bos,
    whole_number("--batch-size", "Windows computed together.  [default: as many as have one full window's tokens]"),
)

memory = option(
    "--memory",
    type=kinds.MEMORY,
    default="1GiB",
    help="Memory for buffers, beside the model: 800MiB, 4GiB.",
)


shard = click.option(
    "--shard",
    type=share_of_work,
    default="1/1",
    metavar="I/N",
    help="Compute the I-th (from 1) of N shares of equal cost; all may run at once, in one folder.",
)

plan = click.option(
    "--plan",
    is_flag=True,
    help="Compute one window, say what all will take (rows, disk, memory, time), print a script for Slurm, and stop.",
)

RUN_TITLE = "Runs that can be interrupted and shared"
run_folder = click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Folder that keeps what is computed: after an interruption, the same command goes on.",
)
engine = together(
    choice(
        "--engine",
        ["local", "ray"],
        "local",
        "ray: a pool of processes, on this machine or a cluster; needs --run.",
    ),
    whole_number("--num-workers", "Processes of --engine ray.  [default: one, or one a GPU]"),
    click.option("--ray-address", help="Ray cluster to join (auto, ray://HOST:10001).  [default: this machine alone]"),
)
run_options = section(RUN_TITLE, run_folder, shard, engine)
planned_run_options = section(RUN_TITLE, run_folder, shard, engine, plan)
RUN_OPTIONS = ("run_folder", "shard", "engine", "num_workers", "ray_address")
"""Parameters of `run_options`, none of which changes a result."""

overwrite = click.option("--overwrite", is_flag=True, help="Replace existing output.")


def silence_warnings(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    """Silence the warnings of measures and inputs where --quiet is given: they are messages, too."""
    logging.getLogger("decomp").setLevel(logging.ERROR if value else logging.NOTSET)
    return value


quiet = click.option(
    "-q", "--quiet", is_flag=True, callback=silence_warnings, help="No progress bar, no messages but errors."
)

output = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Table to write.  [default: standard output]"
)
evaluation_output = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Table to write; its means are printed in any case."
)
seed = seed_of("all random draws")
prompt_bos = click.option(
    "--bos/--no-bos", default=True, help="Begin prompts with the beginning-of-sequence token (default)."
)
plot = click.option("--plot", "picture", type=click.Path(path_type=Path), help="Picture to write, .png, .svg or .pdf.")
table_format = choice(
    "--format",
    ["tsv", "csv", "jsonl", "parquet"],
    None,
    "Format of the table.  [default: that of --output's suffix, else tsv]",
    "format_name",
)


def output_section(*beside: Decorator) -> Decorator:
    """Return the options for a table, and for the files written beside it."""
    return section("Output", output, table_format, *beside)


def names_of_columns(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> dict[str, str] | None:
    """Return the input's columns by the names used here, None for none. BadParameter for what is not NAME=COLUMN."""
    pairs = [text.partition("=") for text in value]
    if wrong := [text for text, (ours, _, theirs) in zip(value, pairs, strict=True) if not (ours and theirs)]:
        raise click.BadParameter(f"expected NAME=COLUMN, such as prompt=sentence, not {wrong[0]!r}")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs} or None


fields_option = click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME=COLUMN",
    callback=names_of_columns,
    help="Read NAME from the input's COLUMN, such as prompt=sentence. Several at once.",
)


def locate_options(*beside: Decorator) -> Decorator:
    """Return the options that `decomp layers`, `neurons` and `edges` share, with those for files beside the table."""
    of_model = section("Model", placement_options, memory, prompt_bos)
    of_input = section("Input file", fields_option)
    return together(of_input, output_section(*beside), of_model, run_options, overwrite, quiet)


def multi_token(what: str) -> Callable[[F], F]:
    """Return the option for how targets and foils of several tokens are scored."""
    return choice(
        "--multi-token",
        ["first", "sum"],
        "first",
        f"{what} of several tokens: the first token that differs, or the sum over all (teacher forcing).",
    )


def convention(known: Mapping[str, Convention], default: str | None = None, help: str = "") -> Callable[[F], F]:
    """Return the option that sets the defaults of other options to those that users of another tool expect."""

    def adopt(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            ctx.default_map = {**(ctx.default_map or {}), **known[value].options}
        return value

    return click.option(
        "--convention",
        type=click.Choice(list(known)),
        default=default,
        show_default=default is not None,
        is_eager=True,
        callback=adopt,
        help=help or "Options as a user of another tool expects them; explicit options override them.",
    )


input_options = section(
    "Input file",
    choice(
        "--input-format",
        ["text", "csv", "tsv", "jsonl", "parquet", "arrow", "conllu"],
        None,
        "Format of INPUT_FILE.  [default: that of its suffix, else text]",
    ),
    option(
        "--text-field",
        default="text",
        shell_complete=kinds.columns_of("input_file"),
        help="Column of a table with the articles: texts, or lists of token ids.",
    ),
    option(
        "--id-field",
        default="id",
        shell_complete=kinds.columns_of("input_file"),
        help="Column of a table with the articles' ids, if any.",
    ),
)

target = click.option(
    "--target",
    type=article_position,
    metavar="POSITION|last",
    help="One token of each article: its position (column `position`, from 0), or last.  [default: all]",
)
targets = click.option(
    "--target",
    "targets",
    multiple=True,
    callback=article_targets,
    metavar="last|N|A:B|all",
    help="What is predicted in each article: the last token, the one at position N (from 0), those from A to B − 1 "
    "together; repeatable.  [default: all]",
)

sources = choice(
    "--sources",
    ["token", "word", "sentence", "line", "paragraph", "segment"],
    None,
    "Sources of contributions; all tokens of one are taken away together.  [default: the unit that is predicted]",
)

sources_section = section("Sources", sources)
"""The option --sources alone, for commands whose targets can't be chosen."""

unit_options = section(
    "What is predicted",
    targets,
    whole_number(
        "--strongest",
        "ΔLP of so many sources of each --target, those that a screen ranks first, and of all <others> together.",
    ),
    choice(
        "--unit",
        ["token", "word"],
        "token",
        "What is predicted: single tokens, or all tokens of a word together.",
    ),
    sources,
    click.option(
        "--words",
        "word_list",
        type=kinds.INPUT,
        help="Table or CoNLL-U of the words: columns article and word, others carried along.  [default: what stands "
        "between spaces]",
    ),
    fields_option,
    whole_number(
        "--span",
        "Score the effect on so many tokens or words together, the predicted one and those after it.",
        1,
    ),
    click.option("--entropy", is_flag=True, help="Add a column: entropy of the next-token distribution, in bits."),
    click.option(
        "--corrected",
        is_flag=True,
        help="Add a column: log2 probability of words corrected for the space that their first token begins with.",
    ),
)

file_or_text = together(
    click.argument("input_file", type=kinds.INPUT_OR_MODEL, required=False, metavar="[INPUT_FILE]"),
    click.argument("model", type=kinds.MODEL, required=False, metavar="MODEL"),
    section(
        "Text instead of a file",
        click.option("--text", help="Score this text instead of a file."),
        whole_number("--max-new-tokens", "Let the model continue --text by so many tokens, and score these."),
        click.option(
            "--sample", is_flag=True, help="Sample the continuation.  [default: the likeliest token each time]"
        ),
        option(
            "--temperature",
            type=click.FloatRange(0, min_open=True),
            default=1.0,
            help="Temperature of --sample.",
        ),
        seed_of("--sample"),
    ),
)
"""The arguments for a file or, instead, a text, which `input_of` reads."""


def input_of(values: Mapping[str, Any]) -> tuple[Path | str, str]:
    """Return the file or the text, and the model's name, from the values of `file_or_text`.

    UsageError where both are given, or neither, or options that need the other.
    """
    path, model, text = values["input_file"], values["model"], values["text"]
    if text is not None and not text.strip():
        raise click.UsageError("--text has no text: give some")
    if text is not None and model is None and path is not None:
        refuse_unless(False, "describes INPUT_FILE: leave it out with --text", "input_format", "text_field", "id_field")
        continues = values["max_new_tokens"] is not None
        refuse_unless(continues, "needs --max-new-tokens: give that too, or leave it out", "sample")
        refuse_unless(values["sample"], "needs --sample: give that too, or leave it out", "temperature")
        check_name(path.as_posix())
        return text, path.as_posix()
    if text is not None and path is not None:
        raise click.UsageError("give either INPUT_FILE or --text, not both")
    if path is None or model is None:
        raise click.UsageError("missing argument: expected INPUT_FILE MODEL, or --text TEXT MODEL")
    if values["max_new_tokens"] is not None:
        raise click.UsageError("--max-new-tokens continues a --text: give one")
    refuse_unless(False, "is for continuing a --text: leave it out", "sample", "temperature")
    kinds.check_there(path)
    kinds.refuse_run(path)
    return path, model


reduction_options = section(
    "Rows that are kept",
    whole_number("--top", "Keep so many sources of each target, those with the highest scores."),
    option(
        "--min-abs",
        type=click.FloatRange(0),
        default=0.0,
        help="Keep scores of at least this absolute value.",
    ),
    whole_number("--min-distance", "Keep sources at least so many tokens (words) back."),
    whole_number("--max-distance", "Keep sources at most so many tokens (words) back."),
    whole_number("--digits", "Digits after the point.  [default: all]", least=0, most=15),
)
"""Options for which sources keep rows of their own; all others of a target are summed in one row, `<dropped>`."""

results = together(output_section(), reduction_options)
"""Options of commands that write a long table to standard output or to a file, with a choice of rows."""
evaluation_results = section("Output", evaluation_output, table_format)
"""Options of commands that print a result, and may write its table to a file."""
table_results = output_section()
"""Options of commands that write a table to standard output or to a file, without a choice of rows."""
manners = together(overwrite, quiet)

gradient_options = section(
    "Gradient measures",
    field_of(GradientOptions, "positions", "Gradients with respect to token + position embedding."),
    field_of(GradientOptions, "reduce", "Gradients over hidden: their signed sum, or their norm."),
    field_of(GradientOptions, "norm", "Norm of gradients."),
    field_of(GradientOptions, "steps", "Nodes of integrated gradients."),
    choice(
        "--quadrature",
        ["gauss-legendre", "left", "right", "midpoint", "trapezoid"],
        GradientOptions.quadrature,
        "Where the nodes of integrated gradients are.",
    ),
    field_of(
        GradientOptions,
        "baseline",
        "Baseline of integrated gradients: zero, mean (embedding), pad, unk, id:N, or a token such as ' the'. auto: "
        "zero where the model adds position embeddings to it, else mean, since no path from zero converges then.",
    ),
    field_of(GradientOptions, "strategy", "Path of discretized_ig."),
    field_of(
        GradientOptions, "dig_steps", "What --steps counts for discretized_ig: words between the ends, or points."
    ),
    field_of(GradientOptions, "neighbors", "Nearest embeddings that discretized_ig chooses among."),
)

attention_options = section(
    "Attention measures",
    field_of(AttentionOptions, "layers", "Layers of attention measures."),
    field_of(AttentionOptions, "heads", "Heads of attention measures."),
    field_of(AttentionOptions, "final_norm", "Value zeroing compares the last layer's outputs after the final norm."),
)

occlusion_options = section(
    "Occlusion",
    field_of(
        OcclusionOptions,
        "replacement",
        "What takes an occluded source's place: mask, key (its key alone is hidden), pad, unk, id:N, or ' the'.",
    ),
)


def measures(*default: str, otherwise: str = "") -> Callable[[F], F]:
    """Return the option that names measures, several at once; `otherwise` says what is computed without any."""
    help = "Measures to compute, several at once; decomp measures lists them." + otherwise
    return option("--measure", "measures", type=kinds.MEASURE, multiple=True, default=default, help=help)


convention_of_measures = convention(
    CONVENTIONS, "decomp", "Defaults of the options of measures as another tool has them: decomp measures shows which."
)


def options_of_measures(*first: Decorator) -> Decorator:
    """Return the options of measures, each named as the field of `Request` or its families that it fills.

    `first` are the options that choose the measures, and the function that they attribute.
    """
    return together(
        section(
            "Measures",
            *first,
            convention_of_measures,
            whole_number("--decomposition-length", "Most recent sources kept per target.  [default: all]"),
            click.option(
                "--extra-rows",
                "extra",
                is_flag=True,
                help="Add rows that are no tokens: <bias>, <remainder> (and <own>).",
            ),
            memory,
        ),
        gradient_options,
        attention_options,
        occlusion_options,
    )


def function_option(functions: Sequence[str]) -> Callable[[F], F]:
    """Return the option for the function that measures attribute."""
    known = kinds.function(functions)
    return click.option("--function", type=known, help=f"Function that is attributed: {', '.join(functions)}.")


def plain_measures(*default: str) -> Decorator:
    """Return the options of measures of the next token."""
    return options_of_measures(measures(*default), function_option(PLAIN_FUNCTIONS))


measure_options = plain_measures("delta_lp")
contrast_options = together(
    section(
        "Items",
        fields_option,
        multi_token("Target and foil"),
        whole_number("--limit", "Score only so many items, the first of a file."),
        bos,
        whole_number("--batch-size", "Items computed together.", 16),
    ),
    options_of_measures(
        measures(otherwise="  [default: those that explain a contrast]"),
        function_option(CONTRAST_FUNCTIONS),
    ),
)
context_items = section(
    "Items",
    whole_number("--limit", "Score only so many items, the first of a file."),
    whole_number("--max-new-tokens", "The most tokens of an answer that the model writes.", 64),
    bos,
)


def context_measures(*default: str) -> Decorator:
    """Return the options of measures of the segments of a context."""
    return together(
        section("Measures", measures(*default), convention_of_measures, memory), gradient_options, occlusion_options
    )


context_options = together(
    context_items,
    section(
        "Sources",
        whole_number(
            "--refine",
            "Divide the strongest segments into sentences (1), and the strongest of these into words (2).",
            0,
            least=0,
            most=2,
        ),
        whole_number("--refine-top", "How many of the strongest are divided at each level.", 1),
    ),
    context_measures("delta_lp"),
)
