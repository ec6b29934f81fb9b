"""Options of the commands that generate images with a trained model; validation takes the defaults."""

from pathlib import Path

from pydantic import model_validator

from vlm_jax.config.rules import Count
from vlm_jax.settings.groups import Group


class Candidates(Group):
    """How many images, and the best of how many."""

    num_images: Count = 1
    """Images of a prompt."""
    num_candidates: Count = 1
    """Each image is the best of this many: the most probable one, or the reranker's choice."""
    reranker: Path | None = None
    """Directory of a captioning run: the best candidate is the one with the highest log-probability of the prompt."""

    @model_validator(mode="after")
    def check_candidates(self) -> "Candidates":
        """A reranker needs candidates to choose from."""
        if self.reranker is not None and self.num_candidates == 1:
            raise ValueError(f"num_candidates is 1, and reranker {self.reranker} chooses among them; raise it")
        return self


class ImageScoring(Candidates):
    """How generated images are chosen and scored."""

    features: str | None = None
    """A converted CNN (folder, file, `package:NAME/folder` or hub id): adds Fréchet distances of its features."""
    features_sha256: str | None = None
    """Refuse a CNN whose file has another SHA-256, so that distances can be compared."""

    @model_validator(mode="after")
    def check_features(self) -> "ImageScoring":
        """A digest needs a CNN."""
        if self.features is None and self.features_sha256 is not None:
            raise ValueError(f"features_sha256 is {self.features_sha256}, and features is not given; give both")
        return self
