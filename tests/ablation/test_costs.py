"""What a config costs by formula, and configs made to cost the same."""

import itertools

import jax
import pytest

from vlm_jax.ablation.costs import TOLERANCE, cost, matched
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.models.image_tokenizer import ImageTokenizer
from vlm_jax.models.inspection import inspect_image_tokenizer
from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.presets import load_preset


@pytest.fixture(scope="module")
def tiny(pytestconfig):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_jax.tasks.vqa._count_answers", lambda data: 13)
        yield load_preset(pytestconfig.rootpath / "configs" / "tiny.py", TASKS)


def changed(config, **settings):
    """The config with the model's settings changed, as a study's override would."""
    return with_changes(config, {f"model.{name}": value for name, value in settings.items()})


def test_parameters_are_those_of_the_model(tiny):
    from vlm_jax.models.vlm import VisualLanguageModel

    model = VisualLanguageModel(tiny.architecture, 13)
    inputs = (jax.numpy.zeros((1, 16, 16, 3)), jax.numpy.zeros((1, 4, 16), int), jax.numpy.ones((1, 4, 16), bool))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))
    assert cost(tiny).parameters == sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_an_image_tokenizer_is_counted_and_not_matched(pytestconfig, quantizer):
    config = load_preset(pytestconfig.rootpath / "configs" / "shape_scenes_tokenizer.py", TASKS)
    config = with_changes(config, {"image_tokenizer.quantizer.kind": quantizer})
    codes = config.image_tokenizer
    shapes = jax.eval_shape(lambda: ImageTokenizer(codes).init(jax.random.key(0), jax.numpy.zeros((1, 64, 64, 3))))
    counted = cost(config)
    assert counted.parameters == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    rows = {row.path: row.flops for row in inspect_image_tokenizer(codes, image_size=(64, 64))}
    assert (rows["quantizer"] > 0) == (quantizer == "vq")
    assert counted.step_flops == 16 * (3 * (rows["encoder"] + rows["decoder"]) + rows["quantizer"])
    with pytest.raises(InputError, match="no trunk to make deeper or wider; match steps"):
        matched(with_changes(config, {"image_tokenizer.depths": (1, 1)}), config, "flops")


def test_a_step_is_forward_and_backward_of_every_image(tiny):
    twice = with_changes(tiny, {"training.batch_images": 16})
    assert cost(twice).step_flops == 2 * cost(tiny).step_flops
    held = with_changes(tiny, {"optimizer.frozen": ("",)})
    assert 3 * cost(held).step_flops == cost(tiny).step_flops


def test_frozen_modules_count_forward_alone(tiny):
    held = with_changes(tiny, {"optimizer.frozen": ("^image/",)})
    from vlm_jax.models.inspection import inspect

    rows = inspect(tiny.architecture, image_size=(16, 16), questions=4, classes=13, text_length=16)
    image = next(row.flops for row in rows if row.path == "image")
    assert cost(tiny).step_flops - cost(held).step_flops == 2 * image * tiny.training.batch_images


@pytest.mark.parametrize(
    ("fusion", "what"),
    [
        ("cross", "flops"),
        ("late", "parameters"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in itertools.product(("cross", "co_attention", "late"), ("flops", "parameters"))
            if pair not in (("cross", "flops"), ("late", "parameters"))
        ),
    ],
)
def test_fusions_are_matched_to_a_budget(tiny, fusion, what):
    """At a width at which the trunk has a share that matters."""
    tiny = changed(tiny, hidden_size=64, intermediate_size=128, num_layers=3)
    config, changes = matched(changed(tiny, **{"fusion.kind": fusion}), tiny, what)
    place = 1 if what == "flops" else 0
    assert abs(cost(config)[place] / cost(tiny)[place] - 1) <= TOLERANCE
    assert config.model.intermediate_size % 16 == 0
    assert f"num_layers 3 -> {config.model.num_layers}" in changes or config.model.num_layers == 3
    other = changed(tiny, **{"fusion.kind": fusion})
    assert changed(config, num_layers=3, intermediate_size=128) == other, "nothing else is changed"


def test_what_agrees_already_is_left_alone(tiny):
    assert matched(tiny, tiny, "flops") == (tiny, "")


def test_a_depth_of_its_own_is_kept_where_the_width_can_do_it(tiny):
    wide = changed(tiny, hidden_size=64, intermediate_size=256, num_layers=2)
    config, changes = matched(changed(wide, intermediate_size=64), wide, "parameters")
    assert (config.model.num_layers, config.model.intermediate_size) == (
        2,
        256,
    ) and changes == "intermediate_size 64 -> 256"


def test_pretrained_layers_are_not_changed(tiny):
    started = with_changes(tiny, {"init.kind": "parts", "init.text": "weights", "model.num_layers": 1})
    with pytest.raises(InputError, match="pretrained layers leave no choice"):
        matched(started, changed(tiny, num_layers=4), "flops")
