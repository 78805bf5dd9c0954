"""From the type of a config to the class that decomposes it: shipped, installed, or registered by a user."""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from decomp.models.families import FAMILIES, Family

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from decomp.models.base import DecomposedModel

ENTRY_POINTS = "decomp.models"
"""The group in which an installed package names its decomposed classes."""

REGISTERED: dict[str, type["DecomposedModel"]] = {}
"""What `register` was given, by `model_type`."""


def register(config_class: type["PreTrainedConfig"], model_class: type["DecomposedModel"]) -> None:
    """Make `load_model` use a decomposed class for every model whose config is of a class.

    ValueError for a config class without a `model_type`, or a model class that is no `DecomposedModel`.
    """
    import transformers

    from decomp.models.base import DecomposedModel

    if not issubclass(config_class, transformers.PreTrainedConfig) or not config_class.model_type:
        raise ValueError(f"expected a config class of transformers with a model_type, not {config_class.__name__}")
    if not issubclass(model_class, DecomposedModel):
        raise ValueError(f"expected a subclass of decomp.models.base.DecomposedModel, not {model_class.__name__}")
    transformers.AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    REGISTERED[config_class.model_type] = model_class


@cache
def register_installed() -> None:
    """Register the classes that installed packages offer in the group `decomp.models`.

    ValueError, which names the package, where one can't be imported.
    """
    for point in entry_points(group=ENTRY_POINTS):
        try:
            model_class: Any = point.load()
            register(model_class.config_class, model_class)
        except Exception as error:
            raise ValueError(
                f"the installed entry point {point.name} = {point.value} of {ENTRY_POINTS} can't be used: {error}; "
                "mend or uninstall its package"
            ) from error


def model_types() -> list[str]:
    """Return the types of config that can be decomposed; those that installed packages offer by their names."""
    installed = [point.name for point in entry_points(group=ENTRY_POINTS)]
    return list(dict.fromkeys([*(family.model_type for family in FAMILIES), *REGISTERED, *installed]))


def class_of(config: Any) -> type["DecomposedModel"]:
    """Return the decomposed class for a config. ValueError, with the nearest family, where there is none."""
    if config.model_type in REGISTERED:
        return REGISTERED[config.model_type]
    for family in FAMILIES:
        if family.model_type == config.model_type:
            module, name = family.model_class.split(":")
            return getattr(import_module(module), name)
    near, shared = nearest_family(config)
    why = f" (its config also has {', '.join(shared)})" if shared else ""
    raise ValueError(
        f"models of type {config.model_type!r} can't be decomposed: supported are {', '.join(model_types())}; "
        f"the nearest is {near.model_type}{why}; decomp.register takes a class of your own"
    )


def nearest_family(config: Any) -> tuple[Family, list[str]]:
    """Return the family whose type and config are most alike, and the fields that both configs have.

    Of families that are alike in both the first one listed.
    """

    def likeness(family: Family) -> float:
        shared = len(shared_traits(family, config))
        # A larger number of the same share says more.
        return alike(family.model_type, config.model_type) + shared / len(family.traits) + shared / 20

    family = max(FAMILIES, key=likeness)
    return family, shared_traits(family, config)


def alike(family_type: str, model_type: str) -> float:
    """Return how much of a type a family's begins with, 2 for the same type; a few letters are chance."""
    if family_type == model_type:
        return 2
    pairs = zip(family_type, model_type, strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return shared / len(model_type) if shared >= len("phi") else 0


def shared_traits(family: Family, config: Any) -> list[str]:
    """Return the fields by which a family is recognised that a config has, too."""
    return [name for name in family.traits if getattr(config, name, None) is not None]
