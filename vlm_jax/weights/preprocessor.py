"""How a published model wants its images: preprocessor_config.json, processor_config.json, or timm's config.json.

Keys and defaults are those of transformers' image processors: ConvNextImageProcessor, which published ResNets name,
EfficientNetImageProcessor, and ViTImageProcessor and its like. Each is obeyed or refused by name; `IGNORED` change no
pixel. A missing key has its default; null switches a step off. A name that ends in Fast is torchvision's backend, any
other name Pillow's. timm's are those of its data/config.py and transforms_factory.py.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from vlm_jax.data.image_settings import TORCHVISION, CenterCrop, Crop, ImageInput, Resample, Stretch, StretchCrop
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json
from vlm_jax.weights.settings_files import PREPROCESSOR, PROCESSOR, SettingsFiles

PROCESSORS = ("ConvNext", "ViT", "Bit", "CLIP", "ChineseCLIP", "DeiT", "MobileNetV2", "EfficientNet", "Siglip", "Blip")
# A size that is one number is that of the short side.
SHORT_SIDE = ("ConvNext", "Bit", "CLIP", "ChineseCLIP", "MobileNetV2", "Siglip")
CROPPED = ("Bit", "CLIP", "ChineseCLIP", "DeiT", "MobileNetV2")  # the centre is cut out by default
CROP_SIZE = dict.fromkeys(CROPPED, 224) | {"EfficientNet": 289}  # where a file has none
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
IGNORED = frozenset(
    {"_valid_processor_keys", "data_format", "device", "disable_grouping", "do_reduce_labels", "input_data_format",
     "processor_class", "return_tensors", "transformers_version"}
)  # fmt: skip
_READ = (
    "crop_pct", "crop_size", "default_to_square", "do_center_crop", "do_convert_rgb", "do_normalize", "do_pad",
    "do_rescale", "do_resize", "feature_extractor_type", "image_mean", "image_processor_type", "image_seq_length",
    "image_std", "pad_size", "resample", "rescale_factor", "size",
)  # fmt: skip
_READ_OF_EFFICIENTNET = ("include_top", "rescale_offset")
_ABOUT_PROCESSOR = ("image_processor", "processor_class")  # of processor_config.json beside the tokenizer
TIMM = {
    "input_size": [3, 224, 224], "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
}  # fmt: skip
"""What decides a pixel in timm's `pretrained_cfg`, with its defaults."""
Colours = tuple[float, float, float]
TIMM_FILE = "config.json (pretrained_cfg)"
Resize = CenterCrop | Stretch | StretchCrop
CONVNEXT_WHOLE, CONVNEXT_SHARE = 384, 224 / 256  # ConvNextImageProcessor crops to this share, below this size only


class Recipe(NamedTuple):
    """Settings, and the file that an error names."""

    file: str
    settings: Mapping[str, Json]

    def get(self, key: str, default: Json = None) -> Json:
        """A setting; the default where the key is missing, and None where the file says null."""
        return self.settings.get(key, default)

    def expect(self, key: str, right: bool, expected: str) -> None:
        """`InputError` where a setting is not right."""
        if not right:
            says = f"{self.file} says {key} = {self.get(key)!r}, which is not supported"
            raise InputError(f"{says}; expected {expected}")


def read_preprocessor(settings_files: SettingsFiles) -> ImageInput | None:
    """A model's image input as the files say; None where there are none.

    `InputError` names what is not supported.
    """
    recipe = _recipe(settings_files)
    if recipe is None:
        return None
    kind = _kind(recipe)
    own = _READ_OF_EFFICIENTNET if kind == "EfficientNet" else ()
    if unknown := sorted(set(recipe.settings) - {*_READ, *own, *IGNORED}):
        says = f"{recipe.file} says {unknown[0]} = {recipe.get(unknown[0])!r}"
        raise InputError(f"{says}, which is not supported; take it out of the file if it changes no pixel")
    for key in ("do_resize", "do_rescale"):
        recipe.expect(key, recipe.get(key, True) is True, "true")
    recipe.expect("do_pad", recipe.get("do_pad") in (None, False), "false or null")
    for key in ("pad_size", "image_seq_length"):
        recipe.expect(key, recipe.get(key) is None, "null")
    resample = recipe.get("resample")  # its default is another one in version 4 than in 5, so it has to be there
    recipe.expect("resample", isinstance(resample, int) and resample in FILTERS, f"one of {FILTERS}")
    size, resize = _sizes(recipe, kind, FILTERS[resample])
    if _name(recipe).endswith("Fast"):
        recipe.expect("resample", resize.resample in TORCHVISION, f"one of {TORCHVISION} for a {_name(recipe)}")
        resize = with_changes(resize, {"backend": "torchvision"})
    mean, std = _normalization(recipe, kind)
    return ImageInput(size=size, resize=resize, mean=mean, std=std)


def write_preprocessor(image: ImageInput) -> SettingsFiles:
    """The file that `read_preprocessor` reads; none where no image processor of transformers does the same.

    These floor the corner of a cut, so a cut that is rounded comes back half a pixel away.
    """
    resize, (height, width) = image.resize, image.size
    if isinstance(resize, Crop) and height == width:
        resize = CenterCrop(short_side=height, resample=resize.resample)
    sizes: dict[str, Json] = {"crop_size": {"height": height, "width": width}, "do_center_crop": True}
    match resize:
        case CenterCrop():
            kind, sizes = "CLIP", sizes | {"size": {"shortest_edge": resize.short_side}}
        case StretchCrop():
            kind, sizes = "DeiT", sizes | {"size": dict(zip(("height", "width"), resize.scaled_size, strict=True))}
        case Stretch():
            kind, sizes = "ViT", {"size": sizes["crop_size"]}
        case _:
            return {}
    (resample,) = (number for number, name in FILTERS.items() if name == resize.resample)
    colours = {"image_mean": list(image.mean), "image_std": list(image.std), "do_normalize": True}
    scale = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": resample}
    suffix = "Fast" if getattr(resize, "backend", "pillow") == "torchvision" else ""
    return {PREPROCESSOR: {"image_processor_type": f"{kind}ImageProcessor{suffix}"} | scale | colours | sizes}


def _recipe(settings_files: SettingsFiles) -> Recipe | None:
    """That of processor_config.json where it has one, as in transformers 5, which reads it first."""
    processor = _object(settings_files.get(PROCESSOR, {}), PROCESSOR)
    if unknown := sorted(set(processor).difference(_ABOUT_PROCESSOR)):
        says = f"{PROCESSOR} says {unknown[0]} = {processor[unknown[0]]!r}"
        raise InputError(f"{says}, which is not supported; take it out of the file if no input depends on it")
    nested = processor.get("image_processor")
    if nested is not None:
        file = f"{PROCESSOR} (image_processor)"
        return Recipe(file, _object(nested, file))
    if PREPROCESSOR not in settings_files:
        return None
    return Recipe(PREPROCESSOR, _object(settings_files[PREPROCESSOR], PREPROCESSOR))


def _object(value: Json, file: str) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise InputError(f"{file} holds {type(value).__name__}; expected an object of settings")
    return value


def _normalization(recipe: Recipe, kind: str) -> tuple[Colours, Colours]:
    """Mean and deviation on a scale of 0 to 1.

    EfficientNet's processor computes (x f - o - mean) / std of a byte x, o being 1 with `rescale_offset` and 0 without.
    Without `do_normalize` it leaves out mean and std; with `include_top` it divides by std once more.
    """
    factor = recipe.get("rescale_factor")
    factor = 1 / 255 if factor is None else factor
    scale = factor * 255 if _is_real(factor) else 0.0
    if abs(scale - 1) < 1e-6:
        scale = 1.0
    if kind != "EfficientNet":
        recipe.expect("rescale_factor", scale == 1, "1/255")
        recipe.expect("do_normalize", recipe.get("do_normalize", True) is True, "true")
        return _colours(recipe, "image_mean", least=0.0), _colours(recipe, "image_std", least=1e-6)
    recipe.expect("rescale_factor", scale > 0, "a number above 0")
    for key in ("do_normalize", *_READ_OF_EFFICIENTNET):
        recipe.expect(key, recipe.get(key) in (None, True, False), "true or false")
    once, again = bool(recipe.get("do_normalize", True)), bool(recipe.get("include_top", True))
    mean = _colours(recipe, "image_mean", least=0.0) if once else (0.0,) * 3
    std = _colours(recipe, "image_std", least=1e-6) if once or again else (1.0,) * 3
    offset = bool(recipe.get("rescale_offset"))
    return tuple((x + offset) / scale for x in mean), tuple(x ** (once + again) / scale for x in std)


def with_timm(image: ImageInput, config: Mapping[str, Json]) -> ImageInput:
    """A CNN's input as timm's config.json says in `pretrained_cfg`, or itself where it is old; else `image`."""
    settings = config.get("pretrained_cfg", config)
    if not isinstance(settings, dict):
        raise InputError(f"config.json says pretrained_cfg = {settings!r}; expected an object of settings")
    settings = {key: value for key, value in settings.items() if key in TIMM and value is not None}
    if not settings:
        return image
    recipe = Recipe(TIMM_FILE, TIMM | settings)
    size, share = recipe.get("input_size"), recipe.get("crop_pct")
    square = isinstance(size, (list, tuple)) and len(size) == 3 and size[0] == 3 and size[1] == size[2]
    recipe.expect("input_size", square and _is_length(size[1]), "[3, pixels, pixels]")
    recipe.expect("crop_pct", _is_real(share) and 0 < share <= 1, "a share between 0 and 1")
    recipe.expect("crop_mode", recipe.get("crop_mode") == "center", "'center'")
    filters = list(FILTERS.values())
    resample = recipe.get("interpolation")
    recipe.expect("interpolation", resample in filters, f"one of {filters}")
    return ImageInput(
        size=(size[1], size[1]),
        resize=CenterCrop(short_side=math.floor(size[1] / share), resample=resample),
        mean=_colours(recipe, "mean", least=0.0),
        std=_colours(recipe, "std", least=1e-6),
    )


def _kind(recipe: Recipe) -> str:
    """Of `PROCESSORS`; old files name a feature extractor, new ones an image processor."""
    name = _name(recipe)
    for kind in PROCESSORS:
        if name.startswith((f"{kind}ImageProcessor", f"{kind}FeatureExtractor")):
            return kind
    raise InputError(f"{recipe.file} names the image processor {name!r}; supported are {', '.join(PROCESSORS)}")


def _name(recipe: Recipe) -> str:
    return str(recipe.get("image_processor_type") or recipe.get("feature_extractor_type") or "ViTImageProcessor")


def _sizes(recipe: Recipe, kind: str, resample: Resample) -> tuple[tuple[int, int], Resize]:
    """The size that the network sees, and how images get it."""
    size, cut = recipe.get("size"), recipe.get("do_center_crop", kind in CROPPED)
    for key in ("default_to_square", "do_center_crop"):
        recipe.expect(key, recipe.get(key) in (None, True, False), "true or false")
    if not isinstance(size, (dict, list)) and not recipe.get("default_to_square", kind not in SHORT_SIDE):
        size = {"shortest_edge": size}
    if kind == "ConvNext":
        return _share_of_size(recipe, size, resample)
    recipe.expect("crop_pct", recipe.get("crop_pct") is None, "null")
    default = CROP_SIZE.get(kind)
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        short_side = size["shortest_edge"]
        recipe.expect("size", _is_length(short_side), "a number of pixels")
        recipe.expect("do_center_crop", bool(cut), "true where size is that of the short side")
        crop_size = _rectangle(recipe, "crop_size", default)
        recipe.expect("crop_size", max(crop_size) <= short_side, "no more than shortest_edge")
        return crop_size, CenterCrop(short_side=short_side, resample=resample, corner="floored")
    scaled_size = _rectangle(recipe, "size")
    if not cut:
        return scaled_size, Stretch(resample=resample)
    crop_size = _rectangle(recipe, "crop_size", default)
    fits = crop_size[0] <= scaled_size[0] and crop_size[1] <= scaled_size[1]
    recipe.expect("crop_size", fits, "no more than size")
    return crop_size, StretchCrop(scaled_size=scaled_size, resample=resample, corner="floored")


def _share_of_size(recipe: Recipe, size: Json, resample: Resample) -> tuple[tuple[int, int], Resize]:
    """ConvNextImageProcessor's: below `CONVNEXT_WHOLE` pixels a share of the scaled image."""
    side = size.get("shortest_edge") if isinstance(size, dict) else None
    recipe.expect("size", _is_length(side), "a number of pixels, or {'shortest_edge': pixels}")
    share = recipe.get("crop_pct") or CONVNEXT_SHARE
    recipe.expect("crop_pct", _is_real(share) and 0 < share <= 1, "a share between 0 and 1")
    recipe.expect("do_center_crop", not recipe.get("do_center_crop"), "none beside crop_pct")
    resize = CenterCrop(short_side=int(side / share), resample=resample, corner="floored")
    return (side, side), Stretch(resample=resample) if side >= CONVNEXT_WHOLE else resize


def _rectangle(recipe: Recipe, key: str, default: int | None = None) -> tuple[int, int]:
    value = recipe.get(key, default)
    sides = (value.get("height"), value.get("width")) if isinstance(value, dict) else (value, value)
    recipe.expect(key, all(map(_is_length, sides)), "a number of pixels, or height and width")
    return sides


def _colours(recipe: Recipe, key: str, *, least: float) -> Colours:
    values = recipe.get(key)
    right = isinstance(values, list) and len(values) == 3 and all(_is_real(x) and least <= x <= 1 for x in values)
    recipe.expect(key, right, f"three numbers from {least} to 1")
    return tuple(map(float, values))


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000
