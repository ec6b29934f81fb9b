"""Sort-of-CLEVR (Santoro et al. 2017): 9,800 training and 200 test images of 75 x 75 pixels, rendered here.

`vlm_jax/scenes/sort_of_clevr.py` has the scenes and their questions, ten relational and ten other ones an image.
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from vlm_jax.data.settings import Prepared, Record
from vlm_jax.data.splits import with_validation
from vlm_jax.settings.rules import Seed

NUM_IMAGES = {"train": 9_800, "test": 200}


class SortOfClevr(Prepared):
    """Questions about relations between six shapes, rendered here."""

    kind: Literal["sort_of_clevr"] = "sort_of_clevr"
    seed: Seed = 0
    """Seed of the rendered images: another seed gives another data set of the same kind."""
    image_size: ClassVar[tuple[int, int]] = (75, 75)

    @property
    def variant(self) -> str:
        """Images and questions depend on the seed alone."""
        return f"seed_{self.seed}"

    def records(self) -> dict[str, Iterable[Record]]:
        """One record an image with its twenty questions."""
        seen: set[tuple[bytes, tuple[bool, ...]]] = set()
        parts = {part: list(_records(part, self.seed, seen)) for part in NUM_IMAGES}
        return {**with_validation(parts["train"]), "test": parts["test"]}


def _records(part: str, seed: int, seen: set[tuple[bytes, tuple[bool, ...]]]) -> Iterator[Record]:
    import numpy as np

    from vlm_jax.data.datasets.builder import png
    from vlm_jax.scenes.sort_of_clevr import generate_questions, paint, sample_scene

    for number in range(NUM_IMAGES[part]):
        random = np.random.default_rng([seed, list(NUM_IMAGES).index(part), number])
        scene = sample_scene(random)
        while (key := (scene.centres.tobytes(), scene.circles)) in seen:  # no image twice, in whatever split
            scene = sample_scene(random)
        seen.add(key)
        image_id = f"{part}/{number}"
        questions = generate_questions(scene, image_id, random)
        yield image_id, {"image_id": image_id, "image": png(paint(scene)), "questions": questions}


SETTINGS = {"questions": SortOfClevr, "images": SortOfClevr}
