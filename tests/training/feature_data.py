"""Settings and images of runs whose image encoder is frozen."""

import numpy as np
from PIL import Image

from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.data.image_settings import AugmentedImages

COUNT = 6
TRUNK = {
    "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_layers": 1,
    "text": TextInput(vocab_size=64, max_length=8), "image": SmallCNN(stem_width=4, widths=(6,), blocks=(0,)),
}  # fmt: skip
COMMON = {
    "image": AugmentedImages(size=(8, 8)),
    "optimizer": AdamW(learning_rate=1e-2, warmup_steps=1, frozen=("^image/",)),
    "training": TextTraining(steps=2, batch_images=4, evaluate_every=1, evaluation_batch_images=4, texts_per_image=1),
}


def save_image(file, number):
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (11, 9, 3), np.uint8)).save(file)
