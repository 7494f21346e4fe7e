"""Reads words of the command line before Hydra does."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from harness.settings.config import CONF


def readable(arguments: Sequence[str]) -> list[str]:
    """The words as Hydra can read them: a value with other signs, such as a path, gets quotes.

    `model=FOLDER_OR_HUB_ID` is short for `model=hf model.path=…`; the names of conf/model/ stay as they are.

    >>> readable(["method=cppo", "model=org/name"])
    ['method=cppo', 'model=hf', 'model.path=org/name']
    >>> readable(["model=export/step=3,org/name"])
    ['model=hf', "model.path='export/step=3',org/name"]
    >>> readable(["runs_dir=/home/zoë/runs", "--config-dir=/home/zoë"])
    ["runs_dir='/home/zoë/runs'", '--config-dir=/home/zoë']
    """
    presets = {path.stem for path in (CONF / "model").glob("*.yaml")}
    expanded = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        others = set(value.split(",")) - presets
        if argument.startswith("-") or "=" not in argument:
            expanded.append(argument)
        elif key != "model" or not others:
            expanded.append(f"{key}={quoted(value)}")
        elif named := presets & set(value.split(",")):
            raise ValueError(
                f"model: {', '.join(sorted(named))} of conf/model/ and {', '.join(sorted(others))}, which would be a folder or "
                f"a hub id, can't stand in one list: give each a sweep of its own"
            )
        else:
            expanded += ["model=hf", f"model.path={quoted(value)}"]
    return expanded


def quoted(value: str) -> str:
    """The value as Hydra's grammar can read it: if it cannot, each comma-separated part that it refuses is put in quotes.

    A list stays as it is: quotes belong around its parts, and Hydra says what is wrong.
    """
    if is_read(value) or value.startswith(("[", "{")):
        return value
    parts = value.split(",")
    return ",".join(part if is_read(part) else QuotedString(part, Quote.single).with_quotes() for part in parts)


def is_read(value: str) -> bool:
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True
