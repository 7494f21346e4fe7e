"""Measure speed and memory as ratios of sides run in turns: `python -m benchmarks [NAME …] [--quick] [--out FILE.json]`.

Needs the extra [bench] for TRL. Uses one thread. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

NAMES = ("peers", "floor", "head", "growth", "sweep")
# The same for all sides, and set before anything is imported: one thread; the C library's allocator keeps its defaults.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",  # no GPU here: python -m benchmarks.gpu measures on one
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all without one")
    parser.add_argument("--quick", action="store_true", help="few rounds, smaller sizes")
    parser.add_argument("--out", type=Path, help="write the ratios to this JSON file, a key each")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    started, ratios = time.monotonic(), []
    for name in options.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        ratios += import_module(f"benchmarks.{name}").run(options.quick)
    print_table(ratios, time.monotonic() - started)
    if options.out:
        options.out.write_text(json.dumps({ratio.key: round(ratio.value, 4) for ratio in ratios}, indent=2) + "\n")


def print_table(ratios: list, seconds: float) -> None:
    from benchmarks.ratio import HEAD

    busy = os.getloadavg()[0]
    print(HEAD, *(ratio.row() for ratio in ratios), sep="\n")
    print(f"\n{seconds:.0f} s; load of the machine {busy:.1f} (this process makes 1; more than that blurs the ratios)")


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execvpe(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], os.environ | ENVIRONMENT)
    import torch

    torch.set_num_threads(1)
    main()
