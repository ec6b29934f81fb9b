"""Published CNNs in plain PyTorch functions, straight from their own tensors: the oracle of `verify`.

Written from the papers and the published names, sharing nothing with our modules and tables. Needs torch.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

Tensors = Mapping[str, Tensor]
Output = tuple[Tensor, Tensor | None]


def run_published(family: str, tensors: Tensors, image: Tensor) -> Output:
    """Pooled features [B, C] and logits (None without a classifier) of pixels [B, 3, h, w]."""
    run, classifier = NETWORKS[family]
    features = run(tensors, image).mean((2, 3))
    if f"{classifier}.weight" not in tensors:
        return features, None
    return features, F.linear(features, tensors[f"{classifier}.weight"], tensors[f"{classifier}.bias"])


def _norm(t: Tensors, x: Tensor, name: str, epsilon: float) -> Tensor:
    statistics = (t[f"{name}.running_mean"], t[f"{name}.running_var"])
    return F.batch_norm(x, *statistics, t[f"{name}.weight"], t[f"{name}.bias"], training=False, eps=epsilon)


def _resnet(t: Tensors, x: Tensor) -> Tensor:
    def unit(x, conv, norm, stride=1):
        weight = t[f"{conv}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return _norm(t, F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups), norm, 1e-5)

    x = F.max_pool2d(F.relu(unit(x, "conv1", "bn1", 2)), 3, 2, 1)
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in t:
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            bottleneck = f"{name}.conv3.weight" in t
            y = F.relu(unit(x, f"{name}.conv1", f"{name}.bn1", 1 if bottleneck else stride))
            y = unit(y, f"{name}.conv2", f"{name}.bn2", stride if bottleneck else 1)
            if bottleneck:
                y = unit(F.relu(y), f"{name}.conv3", f"{name}.bn3")
            if f"{name}.downsample.0.weight" in t:
                x = unit(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = F.relu(x + y)
            block += 1
    return x


def _mobilenet(t: Tensors, x: Tensor) -> Tensor:
    def unit(x, conv, norm, stride=1):
        weight = t[f"{conv}.weight"]
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        return _norm(t, F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups), norm, 1e-5)

    x = F.relu6(unit(x, "features.0.0", "features.0.1", 2))
    for block in range(1, 18):
        name, stride, y = f"features.{block}.conv", 2 if block in (2, 4, 7, 14) else 1, x
        inside = 0
        if f"{name}.1.0.weight" in t:  # the expansion comes first
            y, inside = F.relu6(unit(y, f"{name}.0.0", f"{name}.0.1")), 1
        y = F.relu6(unit(y, f"{name}.{inside}.0", f"{name}.{inside}.1", stride))
        y = unit(y, f"{name}.{inside + 1}", f"{name}.{inside + 2}")
        x = x + y if stride == 1 and x.shape == y.shape else y
    return F.relu6(unit(x, "features.18.0", "features.18.1"))


def _lite(t: Tensors, x: Tensor) -> Tensor:
    def unit(x, conv, norm, stride=1):
        weight = t[f"{conv}.weight"]
        size, groups = weight.shape[-1], x.shape[1] if weight.shape[1] == 1 else 1
        # TensorFlow's SAME: as much as the last window needs, the smaller half first.
        need = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[2:]]
        top, left = need[0] // 2, need[1] // 2
        x = F.pad(x, (left, need[1] - left, top, need[0] - top))
        return _norm(t, F.conv2d(x, weight, stride=stride, groups=groups), norm, 1e-3)

    x = F.relu6(unit(x, "_conv_stem", "_bn0", 2))
    for block in range(16):
        name, stride, y = f"_blocks.{block}", 2 if block in (1, 3, 5, 11) else 1, x
        if f"{name}._expand_conv.weight" in t:
            y = F.relu6(unit(y, f"{name}._expand_conv", f"{name}._bn0"))
        y = F.relu6(unit(y, f"{name}._depthwise_conv", f"{name}._bn1", stride))
        y = unit(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if stride == 1 and x.shape == y.shape else y
    return F.relu6(unit(x, "_conv_head", "_bn1"))


NETWORKS = {
    "torchvision_resnet": (_resnet, "fc"),
    "torchvision_mobilenet_v2": (_mobilenet, "classifier.1"),
    "efficientnet_lite0": (_lite, "_fc"),
}
