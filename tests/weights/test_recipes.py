"""How published CNNs want their pictures travels with them."""

import numpy as np
import pytest

from tests.weights import fixtures, own
from tests.weights.fixtures import BY_NAME
from vlm_jax.config import ImageInput
from vlm_jax.training.initialization import start
from vlm_jax.weights.ported import read, read_import, write_import

IMAGENET = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
LITE = {"mean": (127 / 255,) * 3, "deviation": (128 / 255,) * 3}
CUT = {"size": (224, 224), "resize": "crop", "short_side": 256}
RECIPES = {
    "resnet18": ImageInput(**CUT, **IMAGENET, resample="bicubic"),
    "torchvision_resnet18": ImageInput(**CUT, **IMAGENET, resample="bilinear"),
    "mobilenet_v2": ImageInput(**CUT, **IMAGENET, resample="bilinear"),
    "efficientnet_lite0": ImageInput(**CUT, **LITE, resample="bicubic"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_recipe(name, tmp_path):
    ported = read(str(fixtures.publish(BY_NAME[name].fixtures[0], tmp_path / "published")))
    assert ported.architecture.input == RECIPES[name]
    if name == "mobilenet_v2":  # the lightest
        write_import(ported, tmp_path / "import")
        assert read_import(tmp_path / "import").architecture.input == RECIPES[name]


def test_a_run_that_scales_in_another_way_is_told(tmp_path):
    """A note with the options, which followed leave no note."""
    folder = fixtures.publish(BY_NAME["mobilenet_v2"].fixtures[0], tmp_path / "published")
    image = {"cnn": "mobilenet_v2", "norm": "frozen", "init_from": str(folder)}
    size, side, resample = "--data.image.size 224 224", "--data.image.short-side 256", "--data.image.resample bilinear"
    recipe, params = {"short_side": 256, "resample": "bilinear"}, None
    for data, noted in (
        ({"size": (64, 64)}, [size, side, resample]),
        ({"size": (64, 64)} | recipe, [size]),
        ({"size": (224, 224)} | recipe, []),
    ):
        settings = own.config(image=image, data=data | IMAGENET)
        params = params or own.fresh(settings)  # they do not depend on the size
        _, record = start(settings, params, ("a", "b", "c"))
        (changed,) = record["sources"][0]["changed"] or [""]
        assert all(option in changed for option in noted) and changed.count("--") == len(noted)


def test_classify_sees_what_the_recipe_says(tmp_path, capsys, monkeypatch):
    """The command scales and cuts by it: the pixels that the network is given."""
    from PIL import Image

    from experiments import classify
    from vlm_jax.data import images

    folder = fixtures.publish(BY_NAME["mobilenet_v2"].fixtures[0], tmp_path / "published")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (90, 130, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    seen = []
    resize = images.resize_image
    monkeypatch.setattr(
        images, "resize_image", lambda image, settings: seen.append(settings) or resize(image, settings)
    )
    assert classify.main([str(folder), "--image", str(tmp_path / "noise.png")]) == 0
    assert seen == [RECIPES["mobilenet_v2"]] and "class " in capsys.readouterr().out
