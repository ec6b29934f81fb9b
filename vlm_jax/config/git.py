"""The settings of GIT (Wang et al. 2022, arXiv:2205.14100)."""

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.image_text import ImageTextModel


class Git(ImageTextModel):
    """GIT: an image transformer, and one post-norm transformer over its tokens and the text."""

    trunk: Architecture
    """The text, the layers over both, and the image transformer."""
