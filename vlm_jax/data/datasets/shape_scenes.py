"""Shape scenes: coloured shapes on a light background, with captions, questions and the scene itself.

Drawn here, nothing is downloaded: `vlm_jax/scenes/` says what a scene is and what is true of it. Every image of the
split `held_out` has a pair of colour and shape that the other splits never show, name or ask for. No image of the
split `unseen_prompts` has a complete caption that a training image has.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vlm_jax.data.datasets.records import Record, RecordBuilder, image_with_questions, png
from vlm_jax.errors import InputError
from vlm_jax.scenes.language import caption, free_captions
from vlm_jax.scenes.questions import generate_questions
from vlm_jax.scenes.rendering import render
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, Sampling, check_sampling, sample_scene
from vlm_jax.scenes.scene import Scene, SceneObject, to_json

NUM_IMAGES = {"train": 12_000, "validation": 500, "test": 1_000, "held_out": 500, "unseen_prompts": 500}


class ShapeScenes(RecordBuilder):
    """One record an image: five captions, the complete one first, up to eight questions, and the scene as JSON.

    `size` is the side of an image in pixels; `objects` are the smallest and the largest number of its objects. All
    depends on `seed` alone. Of one object training has every caption: then there is no split `unseen_prompts`.
    """

    SETTINGS = ("seed", "size", "objects")

    def __init__(
        self,
        *,
        seed: int = 0,
        size: int = 64,
        objects: tuple[int, int] = (1, 4),
        num_images: Mapping[str, int] = NUM_IMAGES,
        **options: Any,
    ) -> None:
        self._seed, self._num_images = seed, num_images
        fewest, most = objects
        self._sampling = Sampling(size, fewest, most)
        check_sampling(self._sampling)
        if list(num_images) != list(NUM_IMAGES):
            raise InputError(
                f"shape_scenes needs the number of images of {', '.join(NUM_IMAGES)}, not {list(num_images)}"
            )
        counts = "_".join(str(count) for count in num_images.values())
        name = f"size_{size}_objects_{fewest}_to_{most}_images_{counts}_seed_{seed}"
        super().__init__(config=tfds.core.BuilderConfig(name=name, version=self.VERSION), **options)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        also = {"scene": text, "captions": tfds.features.Sequence(text)}
        size = self._sampling.size
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({**image_with_questions((size, size)), **also}),
            description="Shape scenes: coloured shapes, captions and questions that are true of them",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Record]]:
        seen: set[tuple[SceneObject, ...]] = set()
        scenes: dict[str, list[Scene]] = {}
        for part in self._num_images:
            if part != "unseen_prompts":
                scenes[part] = list(self._scenes(part, seen, set()))
            elif self._sampling.most > 1:
                scenes[part] = list(self._scenes(part, seen, {caption(scene) for scene in scenes["train"]}))
        return {part: self._records(part, listed) for part, listed in scenes.items()}

    def _scenes(self, part: str, seen: set[tuple[SceneObject, ...]], known: set[str]) -> Iterator[Scene]:
        """The scenes of a split: their objects were not seen at these places, their complete captions are not known."""
        sampling = self._sampling
        if part == "held_out":
            sampling = sampling._replace(first=HELD_OUT_PAIRS, others=ALL_PAIRS)
        for number in range(self._num_images[part]):
            random = self._random(part, number, 0)
            scene = sample_scene(random, sampling)
            while scene.objects in seen or caption(scene) in known:
                scene = sample_scene(random, sampling)
            seen.add(scene.objects)
            yield scene

    def _records(self, part: str, scenes: list[Scene]) -> Iterator[Record]:
        for number, scene in enumerate(scenes):
            random = self._random(part, number, 1)
            image_id = f"{part}/{number}"
            yield (
                image_id,
                {
                    "image_id": image_id,
                    "image": png(render(scene)),
                    "scene": to_json(scene),
                    "captions": [caption(scene), *free_captions(scene, random)],
                    "questions": _questions(scene, image_id, random),
                },
            )

    def _random(self, part: str, number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, list(NUM_IMAGES).index(part), number, purpose])


def _questions(scene: Scene, image_id: str, random: np.random.Generator) -> list[dict[str, str]]:
    return [
        {
            "question_id": f"{image_id}/{number}",
            "text": question.text,
            "answers": question.answer,
            "kind": question.kind,
        }
        for number, question in enumerate(generate_questions(scene, random))
    ]


BUILDER = ShapeScenes
