"""The scenes of the splits of a data set.

Every scene of the split `held_out` has a pair of colour and shape that the other splits never show, name or ask for.
No scene of the split `unseen_prompts` has a complete caption that a training scene has.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from vlm_jax.scenes.language import caption
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, Sampling, sample_scene
from vlm_jax.scenes.scene import Scene, SceneObject


def generator(seed: int, split: int, number: int, purpose: int) -> np.random.Generator:
    """The randomness of one scene, by the place of its split: `purpose` 0 samples the scene, 1 its texts."""
    return np.random.default_rng([seed, split, number, purpose])


def sample_splits(sampling: Sampling, seed: int, num_images: Mapping[str, int]) -> dict[str, list[Scene]]:
    """So many scenes for each split.

    Of one object training has every caption: then there is no split `unseen_prompts`.
    """
    seen: set[tuple[SceneObject, ...]] = set()
    scenes: dict[str, list[Scene]] = {}
    for place, (split, count) in enumerate(num_images.items()):
        known = {caption(scene) for scene in scenes["train"]} if split == "unseen_prompts" else set()
        if split == "unseen_prompts" and sampling.most == 1:
            continue
        held_out = sampling._replace(first=HELD_OUT_PAIRS, others=ALL_PAIRS)
        randoms = (generator(seed, place, number, 0) for number in range(count))
        scenes[split] = list(_sample_split(held_out if split == "held_out" else sampling, randoms, seen, known))
    return scenes


def _sample_split(
    sampling: Sampling, randoms: Iterator[np.random.Generator], seen: set[tuple[SceneObject, ...]], known: set[str]
) -> Iterator[Scene]:
    """A scene for each generator: its objects were not `seen` at these places, its complete caption is not `known`."""
    for random in randoms:
        scene = sample_scene(random, sampling)
        while scene.objects in seen or caption(scene) in known:
            scene = sample_scene(random, sampling)
        seen.add(scene.objects)
        yield scene
