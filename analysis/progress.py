"""A bar for what takes more than a moment."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def progress(items: Iterable[T], what: str) -> Iterator[T]:
    """Go through `items`; where standard error is a terminal a bar shows how far, and is gone afterwards."""
    return track(items, what, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
