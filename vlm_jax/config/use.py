"""Options of the commands that use a trained model; validation takes the defaults."""

from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import MinLen
from pydantic import model_validator

from vlm_jax.settings.groups import POSITIONAL, Group
from vlm_jax.settings.rules import Count, Seed


class Predict(Group):
    """What every task takes."""

    examples: ClassVar[tuple[str, ...]] = (
        'runs/quickstart --image cat.png --question "is it red?"',
        "runs/captioning --image photos/ --decoding.kind beam",
    )

    run: Annotated[Path, POSITIONAL]
    """Directory of a run."""
    checkpoint: str = "best"
    """`best` by the validation score, `latest`, or an optimizer step that was kept."""
    output: Path | None = None
    """A PNG that shows the images with the predictions."""
    json_: bool = False
    """One line of JSON for each prediction instead of text."""


class Answer(Predict):
    """Answer every question about every image, with the five most probable answers and their probabilities."""

    examples: ClassVar[tuple[str, ...]] = (
        'runs/quickstart --image cat.png --question "is it red?"',
        'runs/quickstart --image photos/ --question "is it red?" --json',
    )

    image: Annotated[tuple[Path, ...], MinLen(1)]
    """Image files, or folders of them."""
    question: Annotated[tuple[str, ...], MinLen(1)]
    """Questions."""


class Caption(Predict):
    """Write captions of images, with their log-probabilities. The run's settings `--decoding.*` can be changed."""

    examples: ClassVar[tuple[str, ...]] = (
        "runs/captioning --image photos/",
        "runs/captioning --image photos/ --decoding.kind beam",
    )

    image: Annotated[tuple[Path, ...], MinLen(1)]
    """Image files, or folders of them."""
    choices: Annotated[tuple[str, ...], MinLen(1)] | None = None
    """The only captions to choose from."""
    seed: Seed | None = None
    """Other sampled captions than those of the run's seed; the same seed gives the same captions."""


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


class Generate(Predict, Candidates):
    """Generate images of prompts. The run's settings `--generation.*` of decoding can be changed."""

    examples: ClassVar[tuple[str, ...]] = (
        'RUN --prompt "a red circle" --output sheet.png',
        'RUN --prompt "a red circle" --output sheet.png --num-images 4 --seed 1',
    )

    prompt: Annotated[tuple[str, ...], MinLen(1)]
    """Prompts."""
    seed: Seed | None = None
    """Other images than those of the run's seed; the same seed gives the same images."""
    output: Path
    """The PNG that shows all generated images."""


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


def scoring_of(options: Group) -> ImageScoring:
    """How generated images are chosen and scored, as a command's options say."""
    return ImageScoring(**{name: value for name, value in options if name in ImageScoring.model_fields})
