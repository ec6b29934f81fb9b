"""ResNets under torchvision's names: each is known by its tensors, and wide and grouped ones compute the same."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.weights import fixtures
from vlm_jax.config.encoders import CustomResNet
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import ImageClassifier
from vlm_jax.trees import unflatten
from vlm_jax.weights.cnn import CLASSIFIER, TORCHVISION
from vlm_jax.weights.converted_model import shapes
from vlm_jax.weights.family import ConvertedArchitecture, PublishedFile
from vlm_jax.weights.resnet import TORCHVISION_RESNET, TORCHVISION_RESNETS

# Of torchvision's resnet.py: depths, expansion, groups and width_per_group.
ARGUMENTS = {
    "resnet18": ((2, 2, 2, 2), 1, 1, 64),
    "resnet34": ((3, 4, 6, 3), 1, 1, 64),
    "resnet50": ((3, 4, 6, 3), 4, 1, 64),
    "resnet101": ((3, 4, 23, 3), 4, 1, 64),
    "resnet152": ((3, 8, 36, 3), 4, 1, 64),
    "wide_resnet50_2": ((3, 4, 6, 3), 4, 1, 128),
    "wide_resnet101_2": ((3, 4, 23, 3), 4, 1, 128),
    "resnext50_32x4d": ((3, 4, 6, 3), 4, 32, 4),
    "resnext101_32x8d": ((3, 4, 23, 3), 4, 32, 8),
    "resnext101_64x4d": ((3, 4, 23, 3), 4, 64, 4),
}
TINY = CustomResNet(depths=(1, 2), embedding_size=8, hidden_sizes=(16, 32), groups=4, width_factor=2, norm="frozen")


def tensor_shapes(depths, expansion, groups, width_per_group):
    """The shapes of the convolutions and the classifier."""
    inside, tensors = 64, {"conv1.weight": (64, 3, 7, 7)}
    for stage, depth in enumerate(depths):
        planes = 64 * 2**stage
        width, out = planes * width_per_group // 64 * groups, planes * expansion
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            convolutions = [(planes, inside, 3, 3), (planes, planes, 3, 3)]
            if expansion == 4:
                convolutions = [(width, inside, 1, 1), (width, width // groups, 3, 3), (out, width, 1, 1)]
            tensors |= {f"{name}.conv{number}.weight": shape for number, shape in enumerate(convolutions, 1)}
            if inside != out:
                tensors[f"{name}.downsample.0.weight"] = (out, inside, 1, 1)
            inside = out
    return tensors | {"fc.weight": (fixtures.CLASSES, inside), "fc.bias": (fixtures.CLASSES,)}


def architecture_of(tensors, name):
    file = {tensor: SimpleNamespace(shape=shape) for tensor, shape in tensors.items()}
    return TORCHVISION_RESNET.settings(PublishedFile({}, {tensor: tensor for tensor in file}, file, name, CLASSIFIER))


@pytest.mark.parametrize("name", TORCHVISION_RESNETS)
def test_every_resnet_is_known_by_its_tensors(name):
    """And its table has the names and shapes of the file, the norms apart."""
    tensors = tensor_shapes(*ARGUMENTS[name])
    architecture = architecture_of(tensors, name)
    assert architecture.model.name == name and architecture.classes == fixtures.CLASSES
    want = shapes(architecture)
    listed = {}
    for row in TORCHVISION_RESNET.rows(architecture):
        if len(row.source) == 1:
            shape = want[row.target[0]].shape
            listed[row.source[0]] = shape if len(shape) == 1 else (*shape[:-3:-1], *shape[:-2])
    assert listed == tensors


def test_the_tensors_of_another_resnet_are_named():
    with pytest.raises(InputError, match=r"'resnext50_32x4d'.*'wide_resnet50_2'"):
        architecture_of(tensor_shapes(*ARGUMENTS["wide_resnet50_2"]), "resnext50_32x4d")
    with pytest.raises(InputError, match=r"\[1, 1\].*resnet18"):
        architecture_of(tensor_shapes((1, 1), 4, 1, 64), "resnet50")


@pytest.mark.parity
def test_a_wide_and_grouped_resnet_is_that_of_torch():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from vlm_jax.weights.torch_cnns import run_published

    architecture = ConvertedArchitecture(TINY, (), fixtures.CLASSES, TORCHVISION, batch_norm_eps=1e-5)
    want, random, leaves, tensors = shapes(architecture), np.random.default_rng(0), {}, {}
    for row in TORCHVISION_RESNET.rows(architecture):
        shape = want[row.target[0]].shape
        noise = random.standard_normal((len(row.source), *shape)).astype(np.float32)
        if len(row.source) == 4:  # weight, bias, mean, variance
            source = (1 + 0.2 * noise[0], 0.2 * noise[1], 0.2 * noise[2], np.exp(noise[3] - 1))
        else:
            noise /= np.float32(np.sqrt(max(1, np.prod(shape[:-1]))))
            source = row.transform.backward(noise[0])
        tensors |= dict(zip(row.source, source, strict=True))
        leaves |= dict(zip(row.target, row.transform.forward(*source), strict=True))
    assert tensors["layer2.0.conv2.weight"].shape == (16, 4, 3, 3)
    pixels = random.standard_normal((2, 37, 22, 3)).astype(np.float32)
    wide = {name: torch.tensor(array).double() for name, array in tensors.items()}
    references = run_published("torchvision_resnet", wide, torch.tensor(pixels).permute(0, 3, 1, 2).double())
    computed = jax.jit(ImageClassifier(TINY, fixtures.CLASSES).apply)({"params": unflatten(leaves)}, pixels)
    for output, reference in zip((computed.pooler_output, computed.logits), references, strict=True):
        assert np.abs(output - reference.numpy()).max() < 2e-5 * max(1.0, float(reference.abs().max()))
