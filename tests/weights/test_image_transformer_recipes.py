"""How published image transformers want their images: by their files as transformers reads them, and without a file."""

import numpy as np
import pytest

from tests.weights.test_settings_files import preprocessor
from vlm_jax.data.image_settings import CenterCrop, Stretch, StretchCrop
from vlm_jax.data.images import normalise, resize_image
from vlm_jax.errors import InputError
from vlm_jax.weights.clip_vision import CLIP_VISION, SIGLIP_VISION
from vlm_jax.weights.family import PublishedFile
from vlm_jax.weights.vit import DEIT, DINOV2, VIT

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
CUT = {"crop_size": 224, "do_center_crop": True}
# Of each family the processor, what its published preprocessor_config.json says, and our way to scale.
PUBLISHED = {
    "vit": ("ViT", HALF | {"size": 224, "resample": 2}, Stretch(resample="bilinear")),
    "deit": ("DeiT", IMAGENET | CUT | {"size": 256, "resample": 3}, StretchCrop()),
    "dinov2": ("Bit", IMAGENET | CUT | {"size": {"shortest_edge": 256}, "resample": 3}, CenterCrop()),
    "clip_vision_model": ("CLIP", CLIP | CUT | {"size": 224, "resample": 3}, CenterCrop(short_side=224)),
    "siglip_vision_model": ("Siglip", HALF | {"size": {"height": 224, "width": 224}, "resample": 3}, Stretch()),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("shape", [(300, 400, 3), (231, 230, 3)])
def test_pixels_are_those_of_transformers(name, shape):
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    kind, settings, resize = PUBLISHED[name]
    image_input = preprocessor(settings | {"feature_extractor_type": f"{kind}FeatureExtractor"})
    assert image_input.resize == resize and image_input.size == (224, 224)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    image = np.kron(coarse, np.ones((40, 40, 1), np.uint8))[: shape[0], : shape[1]]
    pixels = normalise(resize_image(image, image_input), image_input)
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
    reference = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    # Cutting before scaling rounds some pixels to a neighbouring level.
    levels = 0.01 if isinstance(resize, Stretch) else 2.01
    assert np.abs(pixels - reference).max() * 255 * min(image_input.std) <= levels


@pytest.mark.parametrize("family", [VIT, DEIT, DINOV2, CLIP_VISION, SIGLIP_VISION], ids=lambda family: family.name)
def test_without_a_file_the_published_recipe_holds(family):
    settings = {"image_size": 224, "patch_size": 14}
    architecture = family.settings(PublishedFile(settings, {}, None, family.trunk))
    kind, published, _ = PUBLISHED[family.name]
    assert architecture.input == preprocessor(published | {"feature_extractor_type": f"{kind}FeatureExtractor"})


def test_a_cut_that_is_larger_than_the_scaled_image_is_refused():
    _, settings, _ = PUBLISHED["deit"]
    with pytest.raises(InputError, match="crop_size"):
        preprocessor(settings | {"feature_extractor_type": "DeiTFeatureExtractor", "crop_size": 300})
