"""The smallest run that goes through everything: for tests and for a first look at the code.

Question: does it work here?
Command: python -m experiments.train configs/tiny.py
Time: 17 seconds on two cores, most of them compilation. Accuracy: 64 %, about what the question alone gives.
"""

from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.config.vqa import VQA, Model
from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.image_settings import AugmentedImages


def get_config() -> VQA:
    return VQA(
        name="tiny",
        data=EasyVQA(limit=64),
        image=AugmentedImages(size=(16, 16)),
        model=Model(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=2,
            intermediate_size=64,
            image=SmallCNN(stem_width=8, widths=(16, 32), blocks=(0, 0), stem_stride=1),
            text=TextInput(vocab_size=128, max_length=16),
        ),
        optimizer=AdamW(learning_rate=3e-3, warmup_steps=5),
        training=TextTraining(
            steps=40,
            batch_images=8,
            texts_per_image=4,
            log_every=10,
            evaluate_every=20,
            evaluation_batch_images=16,
        ),
    )
