"""Every command: `python -m vlm_jax train configs/quickstart.py`; `python -m vlm_jax` lists them."""

from vlm_jax.interrupts import install

install()  # before the slow imports: from here on a signal ends the command with one line

from importlib import import_module  # noqa: E402
from pkgutil import iter_modules  # noqa: E402

from vlm_jax.command_line import run_command  # noqa: E402
from vlm_jax.errors import InputError, one_of  # noqa: E402
from vlm_jax.invocation import folder_of_commands  # noqa: E402


def main(argv: list[str]) -> int:
    """Run the command that the first argument names with the others."""
    folder = import_module(folder_of_commands())
    names = sorted(module.name for module in iter_modules(folder.__path__) if not module.name.startswith("benchmark_"))
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m vlm_jax COMMAND [ARGUMENT ...]\n")
        for name in names:
            print(f"  {name:15s} {import_module(f'{folder.__name__}.{name}').__doc__.partition('`')[0].strip(' :')}")
        return 0
    if argv[0] not in names:
        raise InputError(f"no command {argv[0]!r}; {one_of(names)}")
    return import_module(f"{folder.__name__}.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    run_command(main)
