"""Generated images of prompts, and how good they are."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from vlm_jax.figures import Card, side_by_side
from vlm_jax.metrics.images import PLAIN, difference_per_pair
from vlm_jax.scenes.detector import detect_scene
from vlm_jax.scenes.image_check import ImageCheck, check_image
from vlm_jax.scenes.scene import from_json
from vlm_jax.types import Example, Json

SAME = 0.5  # levels; nobody sees less
SHOWN = 4  # images of a prompt on a contact sheet
SURE = 2  # standard errors from which on a mean is taken to be above zero


class GeneratedImages(NamedTuple):
    """The images generated for one prompt."""

    image_id: str
    prompt: str
    images: UInt8[np.ndarray, "S h w 3"]
    checks: tuple[ImageCheck, ...]
    """Each image compared with the scene of the prompt; none where it is unknown."""
    log_likelihood: float
    """Mean log-probability of an image token of the true image, in nats: with all tokens masked or, for
    `autoregressive`, given those before."""
    prompt_gain: float
    """How much of that is due to the prompt: what is lost with that of another image. Not a number where there is
    no other one, or where it has the same."""
    tokens: Int[np.ndarray, "gh gw"]
    """Those of the true image."""

    @property
    def right(self) -> bool | None:
        """Whether the first image shows its prompt; None where the scene is unknown."""
        return self.checks[0].all if self.checks else None

    def score(self, metric: str) -> float:
        """Its own `objects_right` or `log_likelihood`: what the metric is the mean of."""
        if metric == "objects_right":
            return float(np.mean([check.objects for check in self.checks]))
        return self.log_likelihood

    def as_dict(self) -> dict[str, Json]:
        gain = None if np.isnan(self.prompt_gain) else self.prompt_gain
        record = {"image_id": self.image_id, "prompt": self.prompt, "log_likelihood": self.log_likelihood}
        return record | {"prompt_gain": gain, "checks": [check._asdict() for check in self.checks]}

    def card(self, image: np.ndarray | None) -> Card:
        """For a sheet: the first images under their prompt, which the first of them is right or wrong about."""
        return Card(side_by_side(*self.images[:SHOWN]), "", self.prompt, None, (), self.right)


def check_generated(example: Example, images: UInt8[np.ndarray, "S h w 3"]) -> tuple[ImageCheck, ...]:
    """Each image compared with the example's scene; none where it has no scene."""
    if example.scene is None:
        return ()
    scene = from_json(example.scene)
    return tuple(check_image(detect_scene(image), scene) for image in images)


def score_generated(generated: Sequence[GeneratedImages]) -> dict[str, float]:
    """How probable true images are and, where the scene is known, how much of it the generated ones show."""
    likelihood = float(np.mean([row.log_likelihood for row in generated]))
    metrics = {"log_likelihood": likelihood, "log_frequency": log_frequency([row.tokens for row in generated])}
    gains = prompt_gains(generated)
    metrics |= {"prompt_gain": float(np.mean(gains))} if gains else {}
    metrics |= diversity(generated)
    return metrics | image_scores([check for row in generated for check in row.checks])


def warnings_about(generated: Sequence[GeneratedImages], metrics: dict[str, float]) -> list[str]:
    """What a person should know of the scores."""
    images, messages = np.stack([row.images[0] for row in generated]), []
    if images.std((1, 2)).max() < PLAIN:
        messages.append("every generated image is of one colour (yet)")
    elif len(generated) > 1 and (images == images[:1]).all():
        messages.append("every prompt has the same image: the model does not read prompts (yet)")
    if metrics.get("sample_diversity", SAME) < SAME:
        messages.append("all samples of a prompt are the same image: nothing is left to chance")
    gains = prompt_gains(generated)
    if len(gains) > 1 and np.mean(gains) <= SURE * np.std(gains, ddof=1) / len(gains) ** 0.5:
        messages.append("true images are no likelier with their prompts than with others': they are not read (yet)")
    if metrics["log_likelihood"] <= metrics["log_frequency"]:
        messages.append("image tokens are predicted no better than by their frequency: the loss does not move (yet)")
    return messages


def diversity(generated: Sequence[GeneratedImages]) -> dict[str, float]:
    """How far two samples of a prompt are apart, and two prompts' first samples, in levels (`difference_per_pair`).

    Means over prompts and pairs of samples, and over each prompt with the next one that differs; what has no pair is
    left out. Nothing if there is one sample a prompt: images of different prompts should differ.
    """
    many = np.stack([row.images for row in generated])
    if many.shape[1] == 1:
        return {}
    pairs = [difference_per_pair(many[:, a], many[:, b]) for a, b in itertools.combinations(range(many.shape[1]), 2)]
    scores = {"sample_diversity": float(np.mean(pairs))}
    first, differs = many[:, 0], [row.prompt != following.prompt for row, following in itertools.pairwise(generated)]
    if any(differs):
        scores["prompt_diversity"] = float(np.mean(difference_per_pair(first[:-1][differs], first[1:][differs])))
    return scores


def prompt_gains(generated: Sequence[GeneratedImages]) -> list[float]:
    """Of those that have one."""
    return [row.prompt_gain for row in generated if not np.isnan(row.prompt_gain)]


def log_frequency(tokens: Sequence[Int[np.ndarray, "gh gw"]]) -> float:
    """Mean log-probability of an image token, in nats, for who knows nothing but how often each occurs in these
    images."""
    counts = np.bincount(np.stack(tokens).ravel())
    shares = counts[counts > 0] / counts.sum()
    return float(np.sum(shares * np.log(shares)))


def image_scores(checks: Sequence[ImageCheck]) -> dict[str, float]:
    """Means over images of known scenes; nothing where there are none."""
    if not checks:
        return {}
    related = [check.relation for check in checks if check.relation is not None]
    return {
        "objects_right": float(np.mean([check.objects for check in checks])),
        "objects_and_sizes_right": float(np.mean([check.objects_and_sizes for check in checks])),
        "count_right": float(np.mean([check.count for check in checks])),
        "relation_right": float(np.mean(related)) if related else float("nan"),
        "all_right": float(np.mean([check.all for check in checks])),
    }
