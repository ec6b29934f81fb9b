"""How published CNNs want their images travels with them."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from tests.weights import fixtures, own
from tests.weights.fixtures import BY_NAME
from vlm_jax.data.image_settings import CenterCrop, ImageInput
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.initialization import start
from vlm_jax.weights.import_folder import read, read_import, write_import
from vlm_jax.weights.preprocessor import with_timm

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
SIZE = {"size": (224, 224)}
BICUBIC, BILINEAR = CenterCrop(short_side=256), CenterCrop(short_side=256, resample="bilinear")
RECIPES = {
    "resnet18": ImageInput(**SIZE, **IMAGENET, resize=CenterCrop(short_side=256, corner="floored")),
    "torchvision_resnet18": ImageInput(**SIZE, **IMAGENET, resize=BILINEAR),
    "mobilenet_v2": ImageInput(**SIZE, **IMAGENET, resize=BILINEAR),
    "efficientnet_lite0": ImageInput(**SIZE, **LITE, resize=BICUBIC),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_recipe(name, tmp_path):
    converted = read(str(fixtures.publish(BY_NAME[name].fixtures[0], tmp_path / "published")))
    assert converted.architecture.input == RECIPES[name]
    if name == "mobilenet_v2":  # the lightest
        write_import(converted, tmp_path / "import")
        assert read_import(tmp_path / "import").architecture.input == RECIPES[name]


TIMM = {  # as timm/resnet18.a1_in1k has it
    "architecture": "resnet18", "input_size": [3, 224, 224], "test_input_size": [3, 288, 288],
    "interpolation": "bicubic", "crop_pct": 0.95, "test_crop_pct": 1.0, "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 1000, "pool_size": [7, 7],
    "first_conv": "conv1", "classifier": "fc",
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ({"pretrained_cfg": TIMM}, {"resize": CenterCrop(short_side=235)}),
        (TIMM, {"resize": CenterCrop(short_side=235)}),  # old files have no `pretrained_cfg`
        ({"pretrained_cfg": {"input_size": [3, 288, 288]}},
         {"size": (288, 288), "resize": CenterCrop(short_side=329)}),
        ({"pretrained_cfg": {"interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3}},
         {"mean": (0.5,) * 3, "std": (0.25,) * 3}),
        ({"pretrained_cfg": {"num_classes": 1000}}, {}),
        ({}, {}),
    ],
)  # fmt: skip
def test_the_recipe_of_timm_is_that_of_its_config(config, changed):
    recipe = RECIPES["torchvision_resnet18"]
    assert with_timm(recipe, config) == with_changes(recipe, changed)


def test_an_import_takes_the_recipe_of_timm(tmp_path):
    fixture = BY_NAME["torchvision_resnet18"].fixtures[0]
    config = {"architecture": "resnet18", "pretrained_cfg": TIMM}
    folder = fixtures.write(tmp_path / "published", fixtures.tensors(fixture), config)
    assert read(str(folder)).architecture.input.resize.short_side == 235


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input_size", [3, 224, 192]), ("input_size", [1, 28, 28]), ("input_size", 224), ("crop_pct", 0),
        ("crop_pct", "1"), ("crop_mode", "squash"), ("interpolation", "random"), ("mean", [0.5]), ("std", [0, 1, 1]),
    ],
)  # fmt: skip
def test_a_recipe_of_timm_that_is_not_known_is_refused_by_name(key, value):
    with pytest.raises(InputError, match=f"config.json .pretrained_cfg. says {key} = "):
        with_timm(RECIPES["torchvision_resnet18"], {"pretrained_cfg": TIMM | {key: value}})


def test_a_run_that_scales_in_another_way_is_told(tmp_path):
    """A note with the options, which followed leave no note."""
    folder = fixtures.publish(BY_NAME["mobilenet_v2"].fixtures[0], tmp_path / "published")
    fitting = {"model.image.kind": "mobilenet_v2", "model.image.norm": "frozen", "init.kind": "parts"}
    fitting |= {"init.image": str(folder)} | {f"image.{name}": value for name, value in IMAGENET.items()}
    recipe = {"image.resize.kind": "center_crop", "image.resize.short_side": 256, "image.resize.resample": "bilinear"}
    size, params = "--image.size 224 224", None
    resize = ["--image.resize.kind center_crop", "--image.resize.short-side 256", "--image.resize.resample bilinear"]
    resize += ["--image.resize.corner rounded", "--image.resize.backend pillow"]
    for changes, noted in (
        ({"image.size": (64, 64)}, [size, *resize]),
        ({"image.size": (64, 64)} | recipe, [size]),
        ({"image.size": (224, 224)} | recipe, []),
    ):
        settings = own.config(changes=fitting | changes)
        # Shapes are enough, and do not depend on the size.
        params = params or jax.eval_shape(partial(own.fresh, settings))
        _, record = start(settings, params, ("a", "b", "c"))
        (changed,) = record["sources"][0]["changed"] or [""]
        assert all(option in changed for option in noted) and changed.count("--") == len(noted)


def test_classify_preprocesses_by_the_recipe(tmp_path, capsys, monkeypatch):
    """The command scales and cuts by it: the pixels that the network is given. Classes have the file's names."""
    from PIL import Image

    from experiments import classify
    from vlm_jax.inference import images

    folder = fixtures.publish(BY_NAME["mobilenet_v2"].fixtures[0], tmp_path / "published")
    labels = {str(index): f"kind {index}" for index in range(fixtures.CLASSES)}
    (folder / "config.json").write_text(json.dumps({"architecture": "mobilenet_v2", "id2label": labels}))
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (90, 130, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    seen = []
    resize = images.resize_image
    monkeypatch.setattr(
        images, "resize_image", lambda image, settings: seen.append(settings) or resize(image, settings)
    )
    assert classify.main([str(folder), "--image", str(tmp_path / "noise.png")]) == 0
    assert seen == [RECIPES["mobilenet_v2"]] and "kind " in capsys.readouterr().out
