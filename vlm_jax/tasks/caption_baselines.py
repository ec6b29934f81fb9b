"""Captions from the training set without a model: one for all images, or one of those of the most similar images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vlm_jax.metrics.cider_pairs import CiderPairs
from vlm_jax.metrics.ptb_tokens import ptb_tokenize, ptb_tokenize_all
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.scene import from_json
from vlm_jax.types import Example

CANDIDATES, IMAGES = 400, 500  # training captions that may be the constant one, training images that choose it
NEIGHBOURS = 5  # training images whose captions choose among themselves
CAPTIONS = 10  # of one training image that are looked at: what data sets have at most, so that memory has a bound
_ROWS = 50  # candidates at a time: 1 MB of scores with five references an image


def constant_captions(train: Sequence[Example], seed: int) -> dict[str, str]:
    """By the name of the baseline, a training caption for every image, the best of 400 that `seed` chooses.

    `constant`: see `constant_caption`. Where the scenes are known, `constant_true` is the caption that is wholly true
    of most of 500 training images: one that says little may be true of nearly all.
    """
    candidates, choosers = _sample(train, seed)
    chosen = {"constant": constant_caption(candidates, choosers)}
    scenes = [from_json(example.scene) for example in choosers if example.scene is not None]
    if not scenes:
        return chosen
    true = [np.mean([check_caption(text, scene).true for scene in scenes]) for text in candidates]
    return chosen | {"constant_true": candidates[_best(np.array(true))]}


def _sample(train: Sequence[Example], seed: int) -> tuple[list[str], list[Example]]:
    """Different captions to choose from, and the images that choose."""
    random = np.random.default_rng(seed)
    first = np.cumsum([0, *(len(example.texts) for example in train)])
    chosen = random.choice(first[-1], min(first[-1], CANDIDATES), replace=False)
    owners = np.searchsorted(first, chosen, side="right") - 1
    pairs = zip(owners.tolist(), (chosen - first[owners]).tolist(), strict=True)
    candidates = list(dict.fromkeys(train[image].texts[place].text for image, place in pairs))
    choosers = np.sort(random.choice(len(train), min(len(train), IMAGES), replace=False)).tolist()
    return candidates, [train[image] for image in choosers]


def constant_caption(candidates: Sequence[str], choosers: Sequence[Example]) -> str:
    """The candidate with the highest mean CIDEr-D as the hypothesis for every image of `choosers`; of equals the first.

    At most 10 references of an image count.
    """
    references, item_of = _captions(choosers)
    scores = CiderPairs(
        [*map(ptb_tokenize, candidates), *ptb_tokenize_all(references)],
        np.append(np.full(len(candidates), -1), item_of),
    )
    share = 1 / np.bincount(item_of)[item_of]  # the mean over the references of an image
    places, truth = np.arange(len(candidates)), len(candidates) + np.arange(len(references))
    parts = [scores(places[start : start + _ROWS], truth) @ share for start in range(0, len(places), _ROWS)]
    return candidates[_best(np.concatenate(parts))]


def nearest_captions(known: Sequence[Example], nearest: Int[np.ndarray, "N K"]) -> dict[str, list[str]]:
    """By the name of the baseline, a caption for each of N images from its K nearest among `known`, the nearest first.

    `nearest_image`: the first caption of the nearest one; `nearest_consensus`: see `consensus_captions`.
    """
    first = [known[place].texts[0].text for place in nearest[:, 0].tolist()]
    return {"nearest_image": first, "nearest_consensus": consensus_captions(known, nearest)}


def consensus_captions(known: Sequence[Example], nearest: Int[np.ndarray, "N K"]) -> list[str]:
    """For each of N images the consensus caption (Devlin et al. 2015, arXiv:1505.04467) of K training images.

    It is the caption with the highest mean CIDEr-D to the other captions of these images; n-grams are weighted by
    their rarity among all `known` images. `nearest` are places in `known`, the most similar first; of equal captions
    the first is returned.
    """
    texts, item_of = _captions(known)
    scores = CiderPairs(ptb_tokenize_all(texts), item_of)
    starts = np.searchsorted(item_of, np.arange(len(known) + 1))
    places = [np.arange(starts[image], starts[image + 1]) for image in range(len(known))]
    consensus = []
    for row in nearest.tolist():
        own = np.concatenate([places[image] for image in row])
        pairs = scores(own, own)
        np.fill_diagonal(pairs, 0)  # the others' mean has the same divisor for all
        consensus.append(texts[own[_best(pairs.sum(axis=1))]])
    return consensus


def _best(scores: np.ndarray) -> int:
    """The first of the highest; what differs by rounding is equal."""
    return int(np.argmax(np.round(scores, 9)))


def _captions(examples: Sequence[Example]) -> tuple[list[str], Int[np.ndarray, " C"]]:
    """The captions of each image, and for each caption the place of its image."""
    texts = [[text.text for text in example.texts[:CAPTIONS]] for example in examples]
    return [text for row in texts for text in row], np.repeat(np.arange(len(texts)), [len(row) for row in texts])
