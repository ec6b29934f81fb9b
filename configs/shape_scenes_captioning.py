"""What is in the image? Every shape with its size and colour, and where the first stands, in one sentence.

Question: does a prefix language model say only what is true, also of colours on shapes that it never saw together?
Command: python -m experiments.train configs/shape_scenes_captioning.py
Time: 13 minutes on two cores. 96.6 % of the captions wholly true, 99.6 % of the objects named.
"""

from vlm_jax.config.captioning import Captioning, Model
from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.data.datasets.shape_scenes import SceneCaptions
from vlm_jax.data.image_settings import AugmentedImages


def get_config() -> Captioning:
    return Captioning(
        name="shape_scenes_captioning",
        data=SceneCaptions(captions="first"),
        image=AugmentedImages(size=(64, 64), shift=3),
        model=Model(
            hidden_size=128,
            num_attention_heads=4,
            num_layers=3,
            intermediate_size=256,
            image=SmallCNN(stem_width=16, widths=(32, 64, 128), blocks=(0, 1, 1), positions="grid"),
            text=TextInput(vocab_size=128, max_length=24),
        ),
        optimizer=AdamW(learning_rate=1e-3, warmup_steps=200, betas=(0.9, 0.98), weight_decay=0.05, ema=0.99),
        training=TextTraining(steps=3_000, batch_images=32, texts_per_image=1, evaluate_every=500, log_every=50),
    )
