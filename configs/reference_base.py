"""The document's own model at its own sizes: ResNet-50 grid, BERT-base embeddings and trunk, an untied classifier.

Question: does the reference fit, compile and step on this machine?
Command: python -m experiments.train configs/reference_base.py --training.steps 1 --training.batch-images 2
Time: a step of 2 images takes 0.8 to 1.3 seconds on two cores. Accuracy: not trained here.
"""

from vlm_jax.config import Config, Data, ImageEncoder, ImageInput, Model, Optimizer, TextEncoder, Training


def get_config() -> Config:
    return Config(
        name="reference_base",
        data=Data(
            texts_per_image=1,
            image=ImageInput(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True),
        ),
        model=Model(
            fusion="concat",
            attention_pattern="bidirectional",
            hidden_size=768,
            num_attention_heads=12,
            num_layers=12,
            intermediate_size=3072,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            head="per_token",
            classes=30_522,
            image=ImageEncoder(cnn="resnet50", feature_size=2048),
            text=TextEncoder(vocab_size=30_522, feature_size=768, max_length=16),
        ),
        optimizer=Optimizer(learning_rate=5e-5, warmup_steps=1000, weight_decay=0.01, b2=0.999),
        training=Training(steps=10_000, batch_images=64, evaluate_every=1000),
    )
