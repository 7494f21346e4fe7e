"""Explains wrong settings in a few lines that name the nearest key or choice."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Sequence

from hydra.errors import MissingConfigException

from harness.settings.config import CONF
from methods import METHODS


def explain(error: Exception) -> str:
    """Error message of a few lines for wrong settings, with the nearest key if one was misspelt."""
    if isinstance(error, MissingConfigException) and error.options and "/" in error.missing_cfg_file:
        return unknown_choice(*error.missing_cfg_file.rsplit("/", 1), error.options)
    message = str(error).split("Config search path:")[0].strip()
    message = re.sub(r"\nTo append to your .*", "", message)  # a new key or group is refused, see refuse_unknown
    cause = error.__cause__
    reason = str(cause).splitlines()[0] if cause else ""
    if reason and reason not in message:
        message += f"\n  {reason}"
    known = list(getattr(getattr(cause, "object_type", None), "__dataclass_fields__", ()))
    bare = groups() - set(known) if "model" in known else set()  # of the root: chosen by name, and without keys
    key = str(getattr(cause, "key", ""))
    if key in bare:
        message += f"\n  {key} is a group: choose with {key}=NAME; a file conf/{key}/NAME.yaml makes a new choice"
    elif key not in known:
        message += nearest(key, [*known, *bare])
    if (rule := re.search(r"In 'method/(\w+)'", message)) and "not in 'Rule'" in message:
        message += f"\n  conf/method/{rule[1]}.yaml must begin with its schema: /schema/method@_here_ (README.md, Add a rule)"
    return f"error: {message}"


def nearest(key: str, known: Sequence[str]) -> str:
    """A line that names the known key most like this one; "" if none is."""
    similar = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"\n  did you mean {similar[0]}?" if similar else ""


def groups() -> set[str]:
    return {path.name for path in CONF.iterdir() if path.is_dir()}


def unknown_choice(group: str, name: str, options: Sequence[str]) -> str:
    """That a group has no such choice, the nearest ones, and all of them in few lines."""
    if group == "schema/method":
        hint = "no rule of that name is registered: add a line to METHODS in methods/__init__.py (README.md, Add a rule)"
    elif group == "method" and name in METHODS:
        hint = f"the rule is registered, and its numbers are missing: write conf/method/{name}.yaml (README.md, Add a rule)"
    else:
        similar = difflib.get_close_matches(name, options, n=2, cutoff=0.6)
        similar.sort(key=lambda option: not option.startswith(name))
        hint = f"did you mean {' or '.join(similar)}?" if similar else "it is none of the choices"
    indented = {"width": 100, "initial_indent": "  ", "subsequent_indent": "    ", "break_on_hyphens": False}
    listed = textwrap.fill(f"choose from {' '.join(options)}", **indented)
    return f"error: {group}={name}: {hint}\n{listed}"
