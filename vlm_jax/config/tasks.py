"""The config class of every task."""

from vlm_jax.config.captioning import Captioning
from vlm_jax.config.image_generation import ImageGeneration
from vlm_jax.config.image_tokenizer import ImageTokenizer
from vlm_jax.config.vqa import VQA

TextConfig = VQA | Captioning | ImageGeneration
Config = TextConfig | ImageTokenizer
TASKS: dict[str, type[Config]] = {
    "vqa": VQA,
    "captioning": Captioning,
    "image_generation": ImageGeneration,
    "image_tokenizer": ImageTokenizer,
}
