"""Pixels of published image-text models: those of transformers' two image backends, each by its own rounding."""

import json

import numpy as np
import pytest

from tests.goldens.make_processors import PLACE, RECIPES, images
from vlm_jax.data.image_settings import CenterCrop, ImageInput, Stretch
from vlm_jax.data.images import normalise, resize_image
from vlm_jax.errors import InputError
from vlm_jax.weights.preprocessor import read_preprocessor, write_preprocessor

COLOURS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
ALIGN = {  # as kakaobrain/align-base has it
    "image_processor_type": "EfficientNetImageProcessor", "crop_size": {"height": 289, "width": 289},
    "do_center_crop": True, "do_normalize": False, "include_top": False, "resample": 2, "rescale_factor": 1 / 127.5,
    "rescale_offset": True, "size": {"height": 346, "width": 346},
}  # fmt: skip


def read(kind, recipe, suffix=""):
    named = {"image_processor_type": f"{kind}ImageProcessor{suffix}"}
    return read_preprocessor({"preprocessor_config.json": COLOURS | recipe | named})


def pillow(kind, recipe, image):
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**recipe)
    return processor(image, return_tensors="np", input_data_format="channels_last")["pixel_values"][0].transpose(
        1, 2, 0
    )


def levels(first, second):
    return np.abs(first.astype(int) - second.astype(int)).max()


@pytest.mark.parametrize("name", RECIPES)
def test_resized_pixels_are_those_of_both_backends(name):
    kind, recipe = RECIPES[name]
    other = 0
    with np.load(PLACE) as golden:
        for number, image in enumerate(images()):
            ours, fast = (resize_image(image, read(kind, recipe, suffix)) for suffix in ("", "Fast"))
            assert np.array_equal(ours, pillow(kind, recipe | {"do_rescale": False, "do_normalize": False}, image))
            assert np.array_equal(fast, golden[f"pixels/{name}/{number}"]), image.shape
            other = max(other, levels(ours, fast))
    assert other > 0 or name != "blip"  # each backend has its own rounding


@pytest.mark.parametrize("suffix", ["", "Fast"])
def test_a_huge_scaled_image_is_never_made(suffix):
    recipe = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}, "resample": 3}
    for shape in ((1, 5_000_000, 3), (5_000_000, 1, 3)):
        resized = resize_image(np.full(shape, 9, np.uint8), read("CLIP", recipe, suffix))
        assert resized.shape == (28, 28, 3) and (resized == 9).all()


def test_the_processor_of_align_decides_its_size_and_colours():
    image_input = read_preprocessor({"preprocessor_config.json": ALIGN})
    assert image_input.size == (289, 289) and image_input.resize.scaled_size == (346, 346)
    image = next(images())
    output = normalise(resize_image(image, image_input), image_input)
    recipe = {key: value for key, value in ALIGN.items() if key != "image_processor_type"}
    assert np.abs(output - pillow("EfficientNet", recipe, image)).max() < 1e-6


@pytest.mark.parametrize("changes", [{"do_normalize": None}, {"include_top": True}, {"rescale_offset": False}, COLOURS])
def test_colours_of_align_are_obeyed_key_by_key(changes):
    recipe = {"include_top": None} | {key: value for key, value in ALIGN.items() if key != "image_processor_type"}
    recipe |= COLOURS | {"size": {"height": 9, "width": 9}, "crop_size": {"height": 8, "width": 7}} | changes
    image, image_input = next(images()), read("EfficientNet", recipe)
    output = normalise(resize_image(image, image_input), image_input)
    assert np.abs(output - pillow("EfficientNet", recipe, image)).max() < 1e-5


def test_a_missing_crop_has_the_size_of_the_class():
    recipe = {key: value for key, value in ALIGN.items() if key not in ("crop_size", "image_processor_type")}
    assert read("EfficientNet", recipe).size == (289, 289)
    assert read("ChineseCLIP", {"size": 250, "resample": 3}).resize == CenterCrop(short_side=250, corner="floored")
    assert read("Blip", {"size": 384, "resample": 3}).resize == Stretch()


@pytest.mark.parametrize("name", ["Blip", "ChineseCLIP", "CLIP", "EfficientNet", "Siglip"])
def test_what_a_processor_saves_is_read(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    processor = getattr(transformers, f"{name}ImageProcessorPil")()
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    image, image_input = next(images()), read_preprocessor({"preprocessor_config.json": saved})
    expected = processor(image, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
    output = normalise(resize_image(image, image_input), image_input)
    assert output.shape == (*expected.shape[1:], 3)
    assert np.abs(output - expected.transpose(1, 2, 0)).max() < 1e-5


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize"),
        ("preprocessor_config.json", {"resample": 1}, "resample"),
        ("preprocessor_config.json", {"image_processor_type": "Blip2ImageProcessor"}, "Blip2ImageProcessor"),
        ("preprocessor_config.json", {"num_frames": 6}, "num_frames"),
        ("processor_config.json", {"num_query_tokens": 32}, "num_query_tokens"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(file, changes, named):
    recipe = COLOURS | {"image_processor_type": "CLIPImageProcessorFast", "size": 20, "crop_size": 20, "resample": 3}
    files = {"preprocessor_config.json": recipe, "processor_config.json": {"processor_class": "GitProcessor"}}
    assert read_preprocessor(files).size == (20, 20)
    files[file] = files[file] | changes
    with pytest.raises(InputError, match=named) as error:
        read_preprocessor(files)
    assert file in str(error.value) and "\n" not in str(error.value)


def test_the_backend_travels():
    kind, recipe = RECIPES["clip"]
    image_input = read(kind, recipe, "Fast")
    assert image_input.resize.backend == "torchvision"
    assert read_preprocessor(write_preprocessor(image_input)) == image_input
    with pytest.raises(ValueError, match="lanczos"):
        ImageInput(size=(8, 8), resize=Stretch(resample="lanczos", backend="torchvision"))
