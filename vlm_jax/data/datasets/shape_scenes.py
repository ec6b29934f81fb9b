"""Shape scenes: coloured shapes on a light background, with captions, questions and the scene itself.

Rendered here, nothing is downloaded: `vlm_jax/scenes/` says what a scene is and what is true of it.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from vlm_jax.data.settings import Captions, Prepared, Record, Texts
from vlm_jax.scenes.scene import MAX_OBJECTS, check_side
from vlm_jax.settings.rules import Count, Seed

if TYPE_CHECKING:
    from vlm_jax.scenes.scene import Scene

NUM_IMAGES = {"train": 12_000, "validation": 500, "test": 1_000, "held_out": 500, "unseen_prompts": 500}


class ShapeScenes(Prepared):
    """Scenes of a few objects, rendered here."""

    kind: Literal["shape_scenes"] = "shape_scenes"
    seed: Seed = 0
    """Seed of the rendered images: another seed gives another data set of the same kind."""
    size: Count = 64
    """Height and width of the images in pixels."""
    objects: tuple[Count, Count] = (1, 4)
    """The smallest and the largest number of objects in a scene."""

    holds: ClassVar[Texts] = "captions"
    scenes: ClassVar[bool] = True

    @model_validator(mode="after")
    def check_scenes(self) -> "ShapeScenes":
        """There are scenes of this size, with so many objects."""
        check_side(self.size)
        fewest, most = self.objects
        if fewest > most:
            raise ValueError(f"objects is {self.objects}; give the smallest number first")
        if most > MAX_OBJECTS:
            raise ValueError(f"objects is {self.objects}; a scene has at most {MAX_OBJECTS}")
        return self

    @property
    def image_size(self) -> tuple[int, int]:
        """Images are square."""
        return self.size, self.size

    @property
    def variant(self) -> str:
        """All settings, and the number of images."""
        (fewest, most), counts = self.objects, "_".join(map(str, NUM_IMAGES.values()))
        return f"size_{self.size}_objects_{fewest}_to_{most}_images_{counts}_seed_{self.seed}"

    def records(self) -> dict[str, Iterable[Record]]:
        """One record an image: five captions, the complete one first, up to eight questions, and the scene as JSON."""
        from vlm_jax.scenes.sampling import Sampling
        from vlm_jax.scenes.splits import sample_splits

        scenes = sample_splits(Sampling(self.size, *self.objects), self.seed, NUM_IMAGES)
        return {split: _records(split, listed, self.seed) for split, listed in scenes.items()}


def _records(split: str, scenes: "list[Scene]", seed: int) -> Iterator[Record]:
    from vlm_jax.data.datasets.builder import png
    from vlm_jax.scenes.language import caption, free_captions
    from vlm_jax.scenes.questions import generate_questions
    from vlm_jax.scenes.rendering import render
    from vlm_jax.scenes.scene import to_json
    from vlm_jax.scenes.splits import generator

    for number, scene in enumerate(scenes):
        image_id, random = f"{split}/{number}", generator(seed, list(NUM_IMAGES).index(split), number, 1)
        captions = [caption(scene), *free_captions(scene, random)]
        questions = [
            {"question_id": f"{image_id}/{place}", "text": text, "answers": answer, "kind": kind}
            for place, (kind, text, answer) in enumerate(generate_questions(scene, random))
        ]
        fields = {"image_id": image_id, "image": png(render(scene)), "scene": to_json(scene)}
        yield image_id, {**fields, "captions": captions, "questions": questions}


class SceneQuestions(ShapeScenes):
    """Scenes of a few objects with questions, rendered here."""

    holds: ClassVar[Texts] = "questions"


class SceneCaptions(ShapeScenes):
    """Scenes of a few objects with captions, rendered here."""

    captions: Captions = "all"
    """Captions that are learned: all of an image, or the first, which names every object."""


SETTINGS = {"questions": SceneQuestions, "captions": SceneCaptions, "images": ShapeScenes}
