"""Commands: each parses its arguments, calls the library and prints."""

import sys

if sys.argv[0] == "-m":  # as long as Python looks for the command: from here on a signal ends it with one line
    from vlm_jax.interrupts import install

    install()
