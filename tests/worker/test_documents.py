"""The documents say what the program does: every setting, every command."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from worker.__main__ import parser
from worker.settings import CACHE_VARIABLES, Settings, declared

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")

SETTINGS = {variable: (default, meaning) for variable, (_, default, meaning) in CACHE_VARIABLES.items()} | {
    setting.variable: (setting.default, setting.meaning) for setting in declared()
}


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
    Settings.from_environment(values)


@pytest.mark.parametrize("name", subcommands(parser()))
def test_every_command_is_in_the_reference(name: str) -> None:
    """Each command has its section, which names each of its options and verbs."""
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", COMMANDS, re.MULTILINE | re.DOTALL)
    assert section is not None
    command = subcommands(parser())[name]
    for verb, below in subcommands(command).items():
        assert re.search(rf"worker {name} {verb}\b", section[1])
        options(below, section[1])
    options(command, section[1])


def options(command: argparse.ArgumentParser, section: str) -> None:
    """Check that the options of a command are named."""
    for action in command._actions:
        for option in action.option_strings:
            assert option in {"-h", "--help"} or option in section


def test_the_procfile_says_no_more_than_it_must() -> None:
    """The gateway for browsers and the worker; settings come from the environment."""
    assert (ROOT / "Procfile").read_text() == "web: python -m gateway\nworker: python -m worker\n"
