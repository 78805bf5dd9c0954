"""Finding the decomposed class for a model's config: shipped, from an installed package, or registered."""

from functools import cache
from importlib import import_module
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from decomp.io.installed import entry_points
from decomp.models.families import FAMILIES, Family

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from decomp.models.base import DecomposedModel

ENTRY_POINTS = "decomp.models"
"""The group of entry points in which an installed package names its decomposed classes."""

REGISTERED: dict[str, type["DecomposedModel"]] = {}
"""The classes given to `register`, by the `model_type` of their configs."""


def register(config_class: type["PreTrainedConfig"], model_class: type["DecomposedModel"]) -> None:
    """Register a decomposed class for every model whose config is of the class `config_class`.

    `load_model` and all commands then use it. ValueError for a config class without a `model_type`, and for a model
    class that is not a subclass of `DecomposedModel`.

    A class describes where each block keeps its weights (see the page on architectures):

        class MyModel(DecomposedModel, MyForCausalLM):
            def stages(self, block): ...

        decomp.register(MyConfig, MyModel)
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
    """Return the `model_type`s of configs that can be decomposed, those of installed packages included."""
    installed = [point.name for point in entry_points(group=ENTRY_POINTS)]
    return list(dict.fromkeys([*(family.model_type for family in FAMILIES), *REGISTERED, *installed]))


def class_of(config: Any) -> type["DecomposedModel"]:
    """Return the decomposed class for a config. ValueError, with the most similar family, where there is none."""
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
    """Return the family whose type and fields are most similar to a config's, and the fields that both have.

    Of several that are equally similar, it is the first one listed.
    """

    def likeness(family: Family) -> float:
        shared = len(shared_traits(family, config))
        # A larger number of the same share says more.
        return alike(family.model_type, config.model_type) + shared / len(family.traits) + shared / 20

    family = max(FAMILIES, key=likeness)
    return family, shared_traits(family, config)


def alike(family_type: str, model_type: str) -> float:
    """Return the similarity of two model types: 2 for equal ones, else the share of common first letters.

    Fewer than three letters count nothing, since they may be alike by chance.
    """
    if family_type == model_type:
        return 2
    pairs = zip(family_type, model_type, strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return shared / len(model_type) if shared >= len("phi") else 0


def shared_traits(family: Family, config: Any) -> list[str]:
    """Return those of the fields by which a family is recognised that a config has, too."""
    return [name for name in family.traits if getattr(config, name, None) is not None]
