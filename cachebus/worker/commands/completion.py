"""`completion SHELL`: print what makes bash, zsh or fish complete commands, verbs and options.

Written from the parser, so that it is never behind it. What a deployment holds (views, jobs, letters) is not completed:
a Tab must not wait for a server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping

from cachebus.worker.usage import Parser, parser

BASH = """\
# cachebus completion bash: eval "$(cachebus completion bash)" in ~/.bashrc
_cachebus() {
    local current="${COMP_WORDS[COMP_CWORD]}" at="" word words
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "${at:+$at }$word" in @PLACES@) at="${at:+$at }$word" ;; esac
    done
    case "$at" in
@CASES@
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _cachebus cachebus
"""
ZSH = """\
#compdef cachebus
# cachebus completion zsh: eval "$(cachebus completion zsh)" in ~/.zshrc, after compinit
_cachebus() {
    local at="" word list
    for word in "${(@)words[2,CURRENT-1]}"; do
        case "${at:+$at }$word" in @PLACES@) at="${at:+$at }$word" ;; esac
    done
    case "$at" in
@CASES@
    esac
    compadd -- ${=list}
}
compdef _cachebus cachebus
"""
FISH = """\
# cachebus completion fish: cachebus completion fish | source in ~/.config/fish/config.fish
function __cachebus_at
    set -l at
    for word in (commandline -opc)[2..]
        contains -- "$at $word" @PLACES@; and set at "$at $word"
    end
    test "$at" = "$argv"
end
complete -c cachebus -f
@LINES@
"""


def main(asked: argparse.Namespace, _environment: Mapping[str, str]) -> int:
    """Print the script."""
    sys.stdout.write(script(asked.shell))
    return 0


def script(shell: str) -> str:
    """Return the script for one of the shells. In each, words that are no command or verb lead nowhere."""
    places = dict(_places(parser()))
    if shell == "fish":
        known = " ".join(f"' {path}'" for path in places if path)
        lines = [
            f"complete -c cachebus -n \"__cachebus_at '{path and f' {path}'}'\" -a '{' '.join(words)}'"
            for path, words in places.items()
        ]
        return FISH.replace("@PLACES@", known).replace("@LINES@", "\n".join(lines))
    variable, text = ("words", BASH) if shell == "bash" else ("list", ZSH)
    known = "|".join(f'"{path}"' for path in places if path)
    cases = [f'        "{path}") {variable}="{" ".join(words)}" ;;' for path, words in places.items()]
    return text.replace("@PLACES@", known).replace("@CASES@", "\n".join(cases))


def _places(command: Parser, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the words before each place of the command line, and what may stand there."""
    yield path, [*command.choices(), *command.options()]
    for name, below in command.commands().items():
        yield from _places(below, f"{path} {name}".strip())
