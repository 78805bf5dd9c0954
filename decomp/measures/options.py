"""Making the request that measures are computed with, out of the names and values of options."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from decomp.io.amounts import DEFAULT_MEMORY, parse_bytes
from decomp.io.names import suggested
from decomp.measures.conventions import find_convention
from decomp.measures.quadrature import check_steps
from decomp.measures.registry import Measure, find_measure, measure_names
from decomp.measures.request import AttentionOptions, GradientOptions, OcclusionOptions, Request

FAMILIES = {"gradients": GradientOptions, "attention": AttentionOptions, "occlusion": OcclusionOptions}
"""The fields of a request that are dataclasses, whose own fields are options."""
AT_LEAST_ONE = ("decomposition_length", "span", "steps", "neighbors")
RULES = {"ActivationRule": Literal["tangent", "secant"], "GateRule": Literal["frozen", "half"]}
"""The names of types in `decomp.core.rules`, which are not imported just to list options, since that takes torch."""
NOT_OPTIONS = (*FAMILIES, "own", "strongest", "usual")
"""The fields of a request that are not set by options."""


def find_measures(names: str | Sequence[str]) -> list[Measure]:
    """Return the measures of one name or of several.

    ValueError, with the known names, for an unknown name and for none, and for a name that is given twice.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(f"no measure is asked for: choose one of {', '.join(measure_names())}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the measure {twice} is asked for more than once: name every measure once")
    return [find_measure(name) for name in names]


def option_names() -> list[str]:
    """Return the names of all options: `convention`, the fields of `Request`, and those of its dataclasses."""
    own = [field.name for field in fields(Request) if field.name not in NOT_OPTIONS]
    return ["convention", *own] + [field.name for family in FAMILIES.values() for field in fields(family)]


def option_values(request: Request) -> dict[str, Any]:
    """Return the values of all options of a request, by name."""
    families = [request, *(getattr(request, name) for name in FAMILIES)]
    values = {field.name: getattr(family, field.name) for family in families for field in fields(family)}
    return {name: value for name, value in values.items() if name in option_names()}


def request_from(options: Mapping[str, Any]) -> Request:
    """Return the request that options describe; each option has the name of the field of `Request` that it sets.

    Options left out have the values of the `convention`, or their defaults; `memory` is a number of bytes or a text
    such as "1GiB". ValueError for an unknown option (with the most similar known one), and for a value that it can't
    have.
    """
    for name in options:
        if name not in option_names():
            raise ValueError(f"unknown option {name!r}: {suggested(name, option_names(), 'choose among')}")
    convention = find_convention(options.get("convention", "decomp"))
    options = {**convention.options, **options, "usual": convention.functions}
    families = {name: filled(family, options) for name, family in FAMILIES.items()}
    check_steps(families["gradients"].quadrature, families["gradients"].steps)
    memory = parse_bytes(options.get("memory", DEFAULT_MEMORY))
    return filled(Request, {**options, **families, "memory": memory})


def filled(family: type, options: Mapping[str, Any]) -> Any:
    """Return a dataclass filled with the options that are fields of it. ValueError for a value that it can't have."""
    own = {field.name: options[field.name] for field in fields(family) if field.name in options}
    hints = get_type_hints(family, localns=RULES)
    for name, value in own.items():
        allowed = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
        if allowed and value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if name in AT_LEAST_ONE and value is not None and not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name.replace('_', ' ')} must be at least 1, not {value!r}")
    return family(**own)


def begins_with_bos(options: Mapping[str, Any]) -> bool:
    """Return whether texts begin with the beginning-of-sequence token, by the options, their convention, or default."""
    return bool(find_convention(options.get("convention", "decomp")).options.get("bos", True))
