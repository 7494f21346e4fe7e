"""Imports without Python's garbage collector: what torch and transformers leave is no garbage, and looking through it takes
half a second while they are imported and up to one more before the process ends."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)
