"""The base of the studies on easy-VQA: group norm and AdamW, with which their runs were trained."""

from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.config.vqa import VQA, Model
from vlm_jax.data.image_settings import AugmentedImages


def get_config() -> VQA:
    return VQA(
        name="quickstart",
        image=AugmentedImages(size=(64, 64), flip=True, shift=8),
        model=Model(
            hidden_size=128,
            num_attention_heads=4,
            num_layers=2,
            intermediate_size=256,
            image=SmallCNN(stem_width=16, stem_stride=1, widths=(32, 64, 128), blocks=(0, 1, 1)),
            text=TextInput(vocab_size=128, max_length=12),
        ),
        # Above some 6e-4 the post-norm trunk settles for colours and never looks at shapes.
        optimizer=AdamW(learning_rate=5e-4, warmup_steps=200, betas=(0.9, 0.999), weight_decay=0.05, ema=0.99),
        training=TextTraining(steps=1000, batch_images=32, texts_per_image=10, evaluate_every=250, log_every=50),
    )
