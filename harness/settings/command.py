"""Runs the commands beside the main job. They end with a status, or with one line that says what was wrong and what to do."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from harness.files import REMEDIES, WriteError


def exit_with(main: Callable[[list[str]], int]) -> NoReturn:
    """Run `main` on the command line's words. A user's error is printed and gives status 1; other errors keep their traceback."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without ± or ü is no reason to fail
    atexit.register(gc.freeze)  # as in harness/importing.py
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except (HydraException, OmegaConfBaseException) as error:
        from harness.settings.explain import explain  # not earlier: most commands compose nothing

        sys.exit(explain(error))
    except ValueError as error:
        reason = str(error.__cause__ or "").partition("\n")[0]
        sys.exit(f"error: {error}" + (f"\n  {reason}" if reason not in str(error) else ""))
    except BrokenPipeError:  # the reader (head, less) has closed the pipe; Python would report it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        sys.exit(disk_trouble(error))
    except KeyboardInterrupt:
        sys.exit(interrupted())
    sys.exit(status)


def interrupted() -> int:
    """Says what Ctrl-C leaves behind, and gives the status for it."""
    print("stopped: the same command goes on from here", file=sys.stderr)
    return 130


def disk_trouble(error: OSError) -> str:
    """Message for a disk that is full or read-only, or a path that cannot be written; any other error is raised again."""
    if not isinstance(error, WriteError) and error.errno not in REMEDIES:
        raise error
    return f"error: {error}" if isinstance(error, WriteError) else f"error: {error}: {REMEDIES[error.errno]}"
