"""The documents say what the program does: every setting, every command."""

from __future__ import annotations

import argparse
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from cachebus.environment import variables
from cachebus.gateway.settings import ClientSettings
from cachebus.worker.cli import APPLICATION, MODULES
from cachebus.worker.settings import SECTIONS, WorkerSettings
from cachebus.worker.usage import parser

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")

SETTINGS = {variable.name: (variable.default, variable.meaning) for variable in variables(*SECTIONS, ClientSettings)}


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Return the rows of the tables of settings."""
    found = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", text, re.MULTILINE)
    return {variable: (default.strip("`-"), meaning) for variable, default, meaning in found}


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a parser."""
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(actions[0].choices) if actions else {}


def test_every_setting_is_in_the_reference() -> None:
    """Variable, default and meaning are those of the code."""
    assert rows(REFERENCE) == SETTINGS


def test_the_example_environment_names_every_setting_with_a_good_value() -> None:
    """Uncommenting any line of `.env.example` gives values that are accepted."""
    values = dict(re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    assert set(values) == set(SETTINGS)
    WorkerSettings.from_environment(values)


@pytest.mark.parametrize("name", subcommands(parser()))
def test_every_command_is_in_the_reference(name: str) -> None:
    """Each command has its section, which names each of its options and verbs."""
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", COMMANDS, re.MULTILINE | re.DOTALL)
    assert section is not None
    command = subcommands(parser())[name]
    for verb, below in subcommands(command).items():
        assert re.search(rf"cachebus {name} {verb}\b", section[1])
        options(below, section[1])
    options(command, section[1])


def options(command: argparse.ArgumentParser, section: str) -> None:
    """Check that the options of a command are named; those that name the application are explained once for all."""
    everywhere = {"-h", "--help", *(f"--{name}" for name in APPLICATION)}
    for action in command._actions:
        for option in action.option_strings:
            assert option in everywhere or option in section


def test_every_command_has_a_module() -> None:
    """What is asked for can be imported, and takes the arguments and the environment."""
    assert {*MODULES, "check"} == set(subcommands(parser()))
    for module in MODULES.values():
        assert [name.strip("_") for name in inspect.signature(import_module(module).main).parameters] == [
            "asked",
            "environment",
        ]


def test_the_procfile_says_no_more_than_it_must() -> None:
    """The gateway for browsers and the worker; settings come from the environment."""
    assert (ROOT / "Procfile").read_text() == "web: python -m gateway\nworker: python -m worker\n"
