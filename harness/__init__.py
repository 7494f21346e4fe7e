"""The harness: one rollout and learner core, its runs and their folders."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

atexit.register(gc.freeze)  # or Python looks for garbage in all of torch and transformers before it ends: up to a second


@contextmanager
def importing() -> Iterator[None]:
    """Without the garbage collector: what is imported stays, and looking through it meanwhile and later takes half a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
