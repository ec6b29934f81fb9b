"""Every command, as `vlm-jax train quickstart` or `python -m vlm_jax train quickstart`; alone they list them."""

from vlm_jax.interrupts import install

install()  # before the slow imports: from here on a signal ends the command with one line

from importlib import import_module  # noqa: E402
from pkgutil import iter_modules  # noqa: E402
from typing import NoReturn  # noqa: E402

import vlm_jax  # noqa: E402
from vlm_jax.command_line import run_command  # noqa: E402
from vlm_jax.errors import InputError, nearest  # noqa: E402
from vlm_jax.invocation import command_name, folder_of_commands  # noqa: E402


def main(argv: list[str]) -> int:
    """Run the command that the first argument names with the others."""
    folder = import_module(folder_of_commands())
    modules = [entry.name for entry in iter_modules(folder.__path__) if not entry.name.startswith("benchmark_")]
    commands = {name.replace("_", "-"): f"{folder.__name__}.{name}" for name in sorted(modules)}
    if argv and argv[0] == "--version":
        print(f"vlm_jax {vlm_jax.__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: {command_name('COMMAND')} [ARGUMENT ...]\n")
        width = max(map(len, commands))
        for name, module in commands.items():
            print(f"  {name:{width}s}  {import_module(module).__doc__.partition('`')[0].strip(' :')}")
        print(f"\n{command_name('COMMAND')} --help shows its options; {command_name('list')} shows presets and runs.")
        return 0
    name = argv[0].replace("_", "-")
    if name not in commands:
        raise InputError(f"no command {argv[0]!r}; {nearest(name, commands)}")
    return import_module(commands[name]).main(argv[1:])


def console() -> NoReturn:
    """The entry point of `vlm-jax`."""
    run_command(main)


if __name__ == "__main__":
    console()
