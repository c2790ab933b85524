"""Completion of commands, options, choices, files and shipped configurations in a shell."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import shtab

from medmtl.errors import ConfigError
from medmtl.files import shipped_config

SHELLS = ("bash", "zsh")
FILES = {"FILE": shtab.FILE, "CKPT": shtab.FILE, "FOLDER": shtab.DIRECTORY, "DIR": shtab.DIRECTORY}


def completion_parser() -> argparse.ArgumentParser:
    """The options of `medmtl completion`."""
    parser = argparse.ArgumentParser(
        prog="medmtl completion",
        description="Print a script by which the shell completes commands, options, their values and files.",
        epilog="example, in ~/.bashrc: source <(medmtl completion bash)\n"
        "in ~/.zshrc, after compinit: source <(medmtl completion zsh)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="for which shell")
    return parser


def script(shell: str, commands: Mapping[str, tuple[argparse.ArgumentParser, str]]) -> str:
    """The script for a shell.

    Args:
        shell: one of `SHELLS`.
        commands: name -> its options, and what it does.

    Raises:
        ConfigError: the shell is another.
    """
    if shell not in SHELLS:
        raise ConfigError(f"there is no completion for {shell}", fix=f"use one of: {', '.join(SHELLS)}")
    root = argparse.ArgumentParser(prog="medmtl", description="options")
    chosen = root.add_subparsers(dest="command")
    for name, (parser, summary) in commands.items():
        chosen.add_parser(name, help=summary)
        chosen.choices[name] = parser
        _name_files(parser)
    configs = " ".join(sorted(path.name for path in Path(shipped_config("multitask.yaml")).parent.glob("*.yaml")))
    preamble = {
        "bash": f'_medmtl_configs() {{ compgen -W "{configs}" -- "$1"; _shtab_compgen_files "$1"; }}',
        "zsh": f"_medmtl_configs() {{ compadd -- {configs}; _files; }}",
    }
    return f"{shtab.complete(root, shell, preamble=preamble)}\n"


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Say which values are files or folders."""
    for action in parser._actions:  # shtab reads them there, too
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _name_files(inner)
        elif "--config" in action.option_strings:
            action.complete = dict.fromkeys(SHELLS, "_medmtl_configs")  # type: ignore[attr-defined]
        elif action.choices is None and (action.metavar in FILES or action.type is Path):
            action.complete = FILES.get(str(action.metavar), shtab.FILE)  # type: ignore[attr-defined]
