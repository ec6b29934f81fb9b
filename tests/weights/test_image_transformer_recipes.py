"""How published image transformers want their images: by their files as transformers reads them, and without a file."""

import json

import numpy as np
import pytest

from tests.weights.test_settings_files import preprocessor
from vlm_jax.data.image_settings import CenterCrop, Stretch, StretchCrop
from vlm_jax.data.images import normalise, resize_image
from vlm_jax.errors import InputError
from vlm_jax.weights.clip_vision import CLIP_VISION, SIGLIP_VISION
from vlm_jax.weights.family import PublishedFile
from vlm_jax.weights.preprocessor import read_preprocessor
from vlm_jax.weights.settings_files import read_settings_files, write_settings_files
from vlm_jax.weights.vit import DEIT, DINOV2, VIT

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
CUT = {"crop_size": 224, "do_center_crop": True}
# Of each family the processor, what its published preprocessor_config.json says, and our way to scale.
PUBLISHED = {
    "vit": ("ViT", HALF | {"size": 224, "resample": 2}, Stretch(resample="bilinear")),
    "deit": ("DeiT", IMAGENET | CUT | {"size": 256, "resample": 3}, StretchCrop(corner="floored")),
    "dinov2": ("Bit", IMAGENET | CUT | {"size": {"shortest_edge": 256}, "resample": 3}, CenterCrop(corner="floored")),
    "clip_vision_model": (
        "CLIP",
        CLIP | CUT | {"size": 224, "resample": 3},
        CenterCrop(short_side=224, corner="floored"),
    ),
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
    levels = 0.01
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


KINDS = ("Bit", "CLIP", "DeiT", "EfficientNet", "MobileNetV2", "Siglip", "ViT")
SIZED = HALF | {"resample": 2, "crop_size": {"height": 20, "width": 24}}
RECTANGLE, SHORT_SIDE = {"size": {"height": 28, "width": 36}}, {"size": {"shortest_edge": 26}}


def of_transformers(kind, settings):
    """Two images and their pixels; None where these have two shapes. Margins of the cut are even."""
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    coarse = np.random.default_rng(0).integers(0, 256, (10, 14, 3), np.uint8)
    images = [np.kron(coarse[:rows], np.ones((5, 5, 1), np.uint8)) for rows in (10, 7)]
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
    pixels = [processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0) for image in images]
    return images, pixels if pixels[0].shape == pixels[1].shape else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [{}, {"do_center_crop": None}, {"do_center_crop": True}, {"do_center_crop": False}])
@pytest.mark.parametrize("size", [RECTANGLE, SHORT_SIDE, {"size": 26}], ids=str)
def test_the_centre_is_cut_out_where_transformers_does_it(kind, cut, size):
    """Whether a key is missing, null or there; a short side without a cut has images of no one size."""
    recipe = SIZED | cut | size
    named = recipe | {"image_processor_type": f"{kind}ImageProcessor"}
    images, pixels = of_transformers(kind, recipe)
    if pixels is None:
        with pytest.raises(InputError, match="do_center_crop"):
            preprocessor(named)
        return
    image_input = preprocessor(named)
    for image, expected in zip(images, pixels, strict=True):
        output = normalise(resize_image(image, image_input), image_input)
        again = 0.5 if kind == "EfficientNet" else 1  # divided by the deviation once more
        assert output.shape == expected.shape
        assert np.abs(output - expected).max() * 255 * 0.5 * again <= 0.01


@pytest.mark.parametrize("kind", ["Bit", "CLIP", "DeiT", "MobileNetV2"])
def test_a_crop_that_no_file_sizes_has_the_size_of_transformers(kind):
    recipe = HALF | {"resample": 2, "size": {"height": 240, "width": 250}}
    image_input = preprocessor(recipe | {"image_processor_type": f"{kind}ImageProcessor"})
    assert image_input.size == of_transformers(kind, recipe)[1][0].shape[:2]


@pytest.mark.parametrize("key", ["do_rescale", "do_normalize"])
def test_null_switches_a_step_off(key):
    """As false does in transformers, where only a missing key has its default."""
    recipe = SIZED | RECTANGLE
    pixels = [of_transformers("ViT", recipe | {key: value})[1][0] for value in (None, False, True)]
    assert np.array_equal(pixels[0], pixels[1]) and not np.allclose(pixels[0], pixels[2])
    with pytest.raises(InputError, match=f"{key} = None"):
        preprocessor(recipe | {key: None})
    with pytest.raises(InputError, match="do_resize = None"):
        preprocessor(recipe | {"do_resize": None})


def test_null_leaves_out_the_second_division_of_efficientnet():
    colours = [of_transformers("EfficientNet", SIZED | RECTANGLE | {"include_top": top})[1][0] for top in (None, False)]
    assert np.array_equal(*colours)
    named = SIZED | RECTANGLE | {"image_processor_type": "EfficientNetImageProcessor"}
    assert preprocessor(named | {"include_top": None}).std == pytest.approx((0.5, 0.5, 0.5))
    assert preprocessor(named).std == pytest.approx((0.25, 0.25, 0.25))


NEW_KEYS = {  # as files of transformers 4.5x have them
    "data_format": "channels_first", "default_to_square": False, "device": None, "disable_grouping": None,
    "do_convert_rgb": True, "do_pad": None, "image_seq_length": None, "input_data_format": None, "pad_size": None,
    "return_tensors": None,
}  # fmt: skip


def test_keys_that_change_no_pixel_are_accepted():
    recipe = SIZED | SHORT_SIDE | {"image_processor_type": "CLIPImageProcessorFast"}
    assert preprocessor(recipe | NEW_KEYS) == preprocessor(recipe | {"do_pad": False}) == preprocessor(recipe)
    for changes in ({"do_pad": True}, {"pad_size": {"height": 64, "width": 64}}, {"image_seq_length": 3}):
        with pytest.raises(InputError, match=next(iter(changes))):
            preprocessor(recipe | changes)


@pytest.mark.parametrize(("kind", "square"), [("ViT", False), ("CLIP", True), ("Siglip", True)])
def test_a_number_is_a_square_where_the_file_says_so(kind, square):
    recipe = SIZED | {"size": 26, "do_center_crop": True, "default_to_square": square}
    images, pixels = of_transformers(kind, recipe)
    image_input = preprocessor(recipe | {"image_processor_type": f"{kind}ImageProcessor"})
    assert isinstance(image_input.resize, StretchCrop if square else CenterCrop)
    output = normalise(resize_image(images[1], image_input), image_input)
    assert np.abs(output - pixels[1]).max() * 255 * 0.5 <= 0.01


def test_the_recipe_of_a_processor_comes_first(tmp_path):
    """transformers 5 nests it in processor_config.json; the file travels along."""
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 96}, crop_size=80).save_pretrained(tmp_path)
    nested = SIZED | RECTANGLE | {"image_processor_type": "ViTImageProcessor"}
    processor = {"image_processor": nested, "processor_class": "CLIPProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    loaded, _ = transformers.CLIPImageProcessorPil.get_image_processor_dict(tmp_path)
    assert loaded == nested
    files = read_settings_files(tmp_path)
    assert read_preprocessor(files) == preprocessor(nested)
    write_settings_files(files, tmp_path)
    assert read_settings_files(tmp_path)["processor_config.json"] == processor
    for older in ({"processor_class": "CLIPProcessor"}, {"image_processor": None}):
        assert read_preprocessor(files | {"processor_config.json": older}).size == (80, 80)
    for wrong in ([], {"image_processor": 3}, {"image_processor": nested | {"resample": 9}}):
        with pytest.raises(InputError, match=r"^processor_config\.json"):
            read_preprocessor(files | {"processor_config.json": wrong})
