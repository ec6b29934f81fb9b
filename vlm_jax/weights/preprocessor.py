"""How a published CNN wants its images: the preprocessor_config.json beside its weights, or timm's config.json.

Keys and defaults are those of transformers' image processors: ConvNextImageProcessor, which published ResNets name,
EfficientNetImageProcessor, and ViTImageProcessor and its like. Each is obeyed or refused by name; `IGNORED` change no
pixel. timm's are those of its data/config.py and transforms_factory.py.
"""

import math
from collections.abc import Mapping

from vlm_jax.data.image_settings import CenterCrop, ImageInput, Resample, Stretch, StretchCrop
from vlm_jax.errors import InputError
from vlm_jax.types import Json
from vlm_jax.weights.settings_files import PREPROCESSOR, SettingsFiles

PROCESSORS = ("ConvNext", "ViT", "Bit", "CLIP", "DeiT", "MobileNetV2", "EfficientNet", "Siglip")
SHORT_SIDE = ("Bit", "CLIP", "MobileNetV2", "Siglip")  # a size that is one number is that of the short side
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
IGNORED = frozenset(
    {"_valid_processor_keys", "data_format", "device", "disable_grouping", "do_reduce_labels", "input_data_format",
     "processor_class", "return_tensors", "transformers_version"}
)  # fmt: skip
_READ = (
    "crop_pct", "crop_size", "do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize",
    "feature_extractor_type", "image_mean", "image_processor_type", "image_std", "resample", "rescale_factor", "size",
)  # fmt: skip
_READ_OF_EFFICIENTNET = ("include_top", "rescale_offset")
TIMM = {
    "input_size": [3, 224, 224], "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
}  # fmt: skip
"""What decides a pixel in timm's `pretrained_cfg`, with its defaults."""
Colours = tuple[float, float, float]
TIMM_FILE = "config.json (pretrained_cfg)"
Resize = CenterCrop | Stretch | StretchCrop
CONVNEXT_WHOLE, CONVNEXT_SHARE = 384, 224 / 256  # ConvNextImageProcessor crops to this share, below this size only


def read_preprocessor(settings_files: SettingsFiles) -> ImageInput | None:
    """A CNN's input as preprocessor_config.json says; None where there is none.

    `InputError` names what is not supported.
    """
    if PREPROCESSOR not in settings_files:
        return None
    config = settings_files[PREPROCESSOR]
    if not isinstance(config, dict):
        raise InputError(f"{PREPROCESSOR} holds {type(config).__name__}; expected an object of settings")
    kind = _kind(config)
    own = _READ_OF_EFFICIENTNET if kind == "EfficientNet" else ()
    if unknown := sorted(set(config) - {*_READ, *own, *IGNORED}):
        says = f"{PREPROCESSOR} says {unknown[0]} = {config[unknown[0]]!r}"
        raise InputError(f"{says}, which is not supported; take it out of the file if it changes no pixel")
    for key, wanted in (("do_resize", True), ("do_rescale", True), ("do_normalize", True)):
        _expect(config, key, config.get(key, wanted) in (wanted, None), "true")
    resample = config.get("resample")  # its default is another one in version 4 than in 5, so it has to be there
    _expect(config, "resample", isinstance(resample, int) and resample in FILTERS, f"one of {FILTERS}")
    size, resize = _sizes(config, kind, FILTERS[resample])
    mean, std = _normalization(config, kind)
    return ImageInput(
        size=size,
        resize=resize,
        mean=mean,
        std=std,
    )


def _normalization(config: Mapping[str, Json], kind: str) -> tuple[Colours, Colours]:
    """Mean and deviation on a scale of 0 to 1.

    EfficientNet's processor computes (x f - o - mean) / std of a byte x, o being 1 with `rescale_offset` and 0 without,
    and divides by std once more with `include_top`.
    """
    mean, std = _colours(config, "image_mean", least=0.0), _colours(config, "image_std", least=1e-6)
    factor = config.get("rescale_factor")
    factor = 1 / 255 if factor is None else factor
    scale = factor * 255 if _is_real(factor) else 0.0
    if abs(scale - 1) < 1e-6:
        scale = 1.0
    if kind != "EfficientNet":
        _expect(config, "rescale_factor", scale == 1, "1/255")
        return mean, std
    _expect(config, "rescale_factor", scale > 0, "a number above 0")
    for key in _READ_OF_EFFICIENTNET:
        _expect(config, key, config.get(key) in (None, True, False), "true or false")
    offset, again = bool(config.get("rescale_offset")), config.get("include_top") in (None, True)
    mean = tuple((x + offset) / scale for x in mean)
    return mean, tuple((x * x if again else x) / scale for x in std)


def with_timm(image: ImageInput, config: Mapping[str, Json]) -> ImageInput:
    """A CNN's input as timm's config.json says in `pretrained_cfg`, or itself where it is old; else `image`."""
    settings = config.get("pretrained_cfg", config)
    if not isinstance(settings, dict):
        raise InputError(f"config.json says pretrained_cfg = {settings!r}; expected an object of settings")
    settings = {key: value for key, value in settings.items() if key in TIMM and value is not None}
    if not settings:
        return image
    recipe = TIMM | settings
    size, share = recipe["input_size"], recipe["crop_pct"]
    square = isinstance(size, (list, tuple)) and len(size) == 3 and size[0] == 3 and size[1] == size[2]
    _expect(recipe, "input_size", square and _is_length(size[1]), "[3, pixels, pixels]", file=TIMM_FILE)
    _expect(recipe, "crop_pct", _is_real(share) and 0 < share <= 1, "a share between 0 and 1", file=TIMM_FILE)
    _expect(recipe, "crop_mode", recipe["crop_mode"] == "center", "'center'", file=TIMM_FILE)
    filters = list(FILTERS.values())
    _expect(recipe, "interpolation", recipe["interpolation"] in filters, f"one of {filters}", file=TIMM_FILE)
    return ImageInput(
        size=(size[1], size[1]),
        resize=CenterCrop(short_side=math.floor(size[1] / share), resample=recipe["interpolation"]),
        mean=_colours(recipe, "mean", least=0.0, file=TIMM_FILE),
        std=_colours(recipe, "std", least=1e-6, file=TIMM_FILE),
    )


def _expect(config: Mapping[str, Json], key: str, right: bool, expected: str, *, file: str = PREPROCESSOR) -> None:
    if not right:
        raise InputError(f"{file} says {key} = {config.get(key)!r}, which is not supported; expected {expected}")


def _kind(config: Mapping[str, Json]) -> str:
    """Of `PROCESSORS`; old files name a feature extractor, new ones an image processor."""
    name = config.get("image_processor_type") or config.get("feature_extractor_type") or "ViTImageProcessor"
    for kind in PROCESSORS:
        if isinstance(name, str) and name.startswith((f"{kind}ImageProcessor", f"{kind}FeatureExtractor")):
            return kind
    raise InputError(f"{PREPROCESSOR} names the image processor {name!r}; supported are {', '.join(PROCESSORS)}")


def _sizes(config: Mapping[str, Json], kind: str, resample: Resample) -> tuple[tuple[int, int], Resize]:
    """The size that the network sees, and how images get it."""
    size = config.get("size")
    if kind == "ConvNext":
        side = size.get("shortest_edge") if isinstance(size, dict) else size
        _expect(config, "size", _is_length(side), "a number of pixels, or {'shortest_edge': pixels}")
        share = config.get("crop_pct") or CONVNEXT_SHARE
        _expect(config, "crop_pct", _is_real(share) and 0 < share <= 1, "a share between 0 and 1")
        _expect(config, "do_center_crop", not config.get("do_center_crop"), "none beside crop_pct")
        short_side = int(side / share)
        whole = side >= CONVNEXT_WHOLE
        resize = Stretch(resample=resample) if whole else CenterCrop(short_side=short_side, resample=resample)
        return (side, side), resize
    _expect(config, "crop_pct", config.get("crop_pct") is None, "null")
    if kind in SHORT_SIDE and not isinstance(size, dict):
        size = {"shortest_edge": size}
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        _expect(config, "size", _is_length(size["shortest_edge"]), "a number of pixels")
        _expect(config, "do_center_crop", config.get("do_center_crop", True) is True, "true beside shortest_edge")
        cut = _rectangle(config, "crop_size")
        _expect(config, "crop_size", max(cut) <= size["shortest_edge"], "no more than shortest_edge")
        return cut, CenterCrop(short_side=size["shortest_edge"], resample=resample)
    if kind == "DeiT" and config.get("do_center_crop", True):
        scaled, cut = _rectangle(config, "size"), _rectangle(config, "crop_size")
        _expect(config, "crop_size", cut[0] <= scaled[0] and cut[1] <= scaled[1], "no more than size")
        return cut, StretchCrop(scaled_size=scaled, resample=resample)
    _expect(config, "do_center_crop", not config.get("do_center_crop"), "false, or size with shortest_edge alone")
    return _rectangle(config, "size"), Stretch(resample=resample)


def _rectangle(config: Mapping[str, Json], key: str) -> tuple[int, int]:
    value = config.get(key)
    sides = (value.get("height"), value.get("width")) if isinstance(value, dict) else (value, value)
    _expect(config, key, all(map(_is_length, sides)), "a number of pixels, or height and width")
    return sides


def _colours(config: Mapping[str, Json], key: str, *, least: float, file: str = PREPROCESSOR) -> Colours:
    values = config.get(key)
    right = isinstance(values, list) and len(values) == 3 and all(_is_real(x) and least <= x <= 1 for x in values)
    _expect(config, key, right, f"three numbers from {least} to 1", file=file)
    return tuple(map(float, values))


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000
