"""A context for imports without Python's garbage collector, which Ctrl-C ends without a traceback.

The objects that torch and transformers create on import stay alive. Scanning them would take half a second during the import
and up to one more second when the process ends.
"""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    gc.disable()
    try:
        yield
    except KeyboardInterrupt:
        print("stopped before anything had begun", file=sys.stderr)
        sys.exit(130)
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)
