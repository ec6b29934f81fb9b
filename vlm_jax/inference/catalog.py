"""What there is by name: presets, packaged models, and families of published models."""

from vlm_jax.invocation import folder_of_presets
from vlm_jax.settings.presets import descriptions

PACKAGED = {"package:vlm_jax/quickstart": "answers questions about coloured shapes: the preset quickstart, trained"}


def list_presets() -> dict[str, str]:
    """Every preset by its name, with one line: what `vlm_jax.train` takes."""
    return descriptions(folder_of_presets())


def list_models() -> dict[str, str]:
    """What `vlm_jax.from_pretrained` reads, each with one line: packaged models by their sources, families of published
    models by their names, with the classes that are read."""
    from vlm_jax.weights.families import FAMILIES

    return PACKAGED | {family.name: f"published weights of {family.about}" for family in FAMILIES.values()}
