"""Vision-language models in JAX and Flax: train, compare, port and prove.

Importing this package is cheap: every heavy dependency is imported by the module that needs it.
"""

__version__ = "0.1.0"
