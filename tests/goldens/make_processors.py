"""Pixels of transformers' torchvision backend, which the tests do not install, into `processors.npz`.

Run by hand in an environment of its own, with torch 2.14.1, torchvision 0.29.1 and transformers 5.24.0, from the root
of the repository: `python -m tests.goldens.make_processors`.
"""

from pathlib import Path

import numpy as np

PLACE = Path(__file__).with_name("processors.npz")
SHAPES = ((37, 53), (53, 37), (24, 24), (25, 24), (1, 60), (60, 1), (3, 3), (9, 130), (120, 161))
RECIPES = {  # of each family, as its preprocessor_config.json says it, at a size of few pixels; margins are odd
    "git": ("CLIP", {"size": {"shortest_edge": 25}, "crop_size": {"height": 20, "width": 20}, "resample": 3}),
    "git_square": ("CLIP", {"size": {"height": 23, "width": 23}, "crop_size": 20, "resample": 3}),
    "blip": ("Blip", {"size": {"height": 20, "width": 20}, "resample": 3}),
    "align": (
        "EfficientNet",
        {"size": {"height": 27, "width": 27}, "crop_size": {"height": 20, "width": 20}, "do_center_crop": True,
         "include_top": False, "resample": 2},
    ),
    "clip": ("CLIP", {"size": {"shortest_edge": 20}, "crop_size": {"height": 20, "width": 20}, "resample": 3}),
    "siglip": ("Siglip", {"size": {"height": 20, "width": 20}, "resample": 3}),
    "chinese_clip": ("ChineseCLIP", {"size": {"height": 20, "width": 20}, "do_center_crop": False, "resample": 3}),
    "nearest": ("ViT", {"size": {"height": 20, "width": 20}, "resample": 0}),
}  # fmt: skip


def images():
    """Noise over coarse blocks, with sharp edges, one image a shape."""
    random = np.random.default_rng(0)
    for height, width in SHAPES:
        blocks = random.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3))
        blocks = np.kron(blocks, np.ones((6, 6, 1), int))[:height, :width]
        yield (blocks + random.integers(-30, 31, blocks.shape)).clip(0, 255).astype(np.uint8)


def pixels():
    """Resized and cut by the torchvision backend, by recipe and number of the image."""
    import transformers
    from PIL import Image

    for name, (kind, recipe) in RECIPES.items():
        processor = getattr(transformers, f"{kind}ImageProcessor")(**recipe, do_rescale=False, do_normalize=False)
        assert processor.backend == "torchvision"
        for number, image in enumerate(images()):
            output = processor(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
            yield f"pixels/{name}/{number}", np.moveaxis(np.asarray(output), 0, -1).astype(np.uint8)


if __name__ == "__main__":
    np.savez_compressed(PLACE, **dict(pixels()))
