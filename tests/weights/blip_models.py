"""Tiny BLIPs of transformers with random weights, as folders that it saves."""

IMAGE = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
WIDE_IMAGE = IMAGE | {"hidden_size": 36}
TEXT = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 61,
    "max_position_embeddings": 16, "bos_token_id": 58, "sep_token_id": 3, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
CLASSES = ("BlipForConditionalGeneration", "BlipForQuestionAnswering", "BlipForImageTextRetrieval")


def make(name, *, image=IMAGE, text=TEXT, **settings):
    """A model of a class with the weights that transformers draws."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BlipConfig(text_config=text, vision_config=image, image_text_hidden_size=7, **settings)
    return getattr(transformers, name)(config).eval()


def publish(name, folder, *, std=0.02, **settings):
    """A model with weights of a deviation; biases and scales are shaken more, so that a mix-up shows."""
    import torch

    model = make(name, **settings)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            is_scale = "norm" in path.lower() and path.endswith("weight")
            spread = 0.2 if is_scale or path.endswith("bias") else std
            parameter.copy_(spread * torch.randn(parameter.shape) + float(is_scale))
    model.save_pretrained(folder)
    return folder
