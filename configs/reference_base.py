"""The reference model at its own sizes: ResNet-50 grid, BERT-base, an untied classifier.

Question: does the reference fit, compile and step on this machine?
Command: python -m experiments.train configs/reference_base.py --training.steps 1 --training.batch-images 2
Time: a step of 2 images takes 0.8 to 1.3 seconds on two cores. Accuracy: not trained here.
"""

from vlm_jax.config.encoders import ResNet
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.config.vqa import VQA, Concat, Model, PerToken
from vlm_jax.data.image_settings import AugmentedImages


def get_config() -> VQA:
    return VQA(
        name="reference_base",
        image=AugmentedImages(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True),
        model=Model(
            hidden_size=768,
            num_attention_heads=12,
            num_layers=12,
            intermediate_size=3072,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            fusion=Concat(attention_pattern="bidirectional", head=PerToken(classes=30_522)),
            image=ResNet(depth=50),
            text=TextInput(vocab_size=30_522, max_length=16),
        ),
        optimizer=AdamW(learning_rate=5e-5, warmup_steps=1000, weight_decay=0.01, betas=(0.9, 0.999)),
        training=TextTraining(steps=10_000, batch_images=64, texts_per_image=1, evaluate_every=1000),
    )
