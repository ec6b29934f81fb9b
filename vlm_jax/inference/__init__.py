"""Trained and published models, ready for use from Python: `vlm_jax.from_pretrained` returns one."""
