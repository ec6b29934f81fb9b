"""Settings of published models that have an image side and a text side, each with layers of its own."""

from vlm_jax.settings.groups import Group


class ImageTextModel(Group):
    """A published model of images and texts; each family has a subclass with its settings."""
