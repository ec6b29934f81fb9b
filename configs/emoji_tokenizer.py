"""The image tokenizer of emoji_generation: an emoji as 64 image tokens, and back.

Question: how much of a new emoji do 8 x 8 image tokens of 1,000 keep, learned from 1,523 images?
Command: python -m experiments.train configs/emoji_tokenizer.py --data.images EMOJI
docs/tasks.md says how to get the images.
"""

from vlm_jax.config.image_tokenizer import ImageTokenizer, NoisyImageTokenizer
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.quantizers import FSQ
from vlm_jax.config.run import Training
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.user_files.emoji import EmojiImages


def get_config() -> ImageTokenizer:
    return ImageTokenizer(
        name="emoji_tokenizer",
        data=EmojiImages.model_construct(),  # its images are given on the command line
        # Nothing but the decoder reads these images: mirrored and moved, there are more of them.
        image=AugmentedImages(size=(64, 64), flip=True, shift=4),
        image_tokenizer=NoisyImageTokenizer(
            quantizer=FSQ(levels=(8, 5, 5, 5)), patch_size=4, widths=(48, 96), depths=(1, 2)
        ),
        optimizer=AdamW(learning_rate=2e-3, warmup_steps=100, betas=(0.9, 0.98), weight_decay=0.0, ema=0.99),
        training=Training(steps=5_000, batch_images=16, evaluate_every=1_000, log_every=100),
    )
