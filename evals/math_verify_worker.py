"""The process behind MathVerifyGrader; run as a file, not imported. It keeps math-verify's hangs out of the harness.

Speaks JSON lines: prints "ready" once loaded, then answers each ["gold", "answer"] on standard input with one of
"correct", "wrong", "unreadable" (the answer) and "bad_gold". Ends with its input.
"""

import json
import logging
import resource
import signal
import sys
from functools import lru_cache

from math_verify import parse, verify

MAX_MEMORY = 2 * 2**30
ORPHAN_SECONDS = 30


@lru_cache(4096)
def parse_answer(text: str) -> tuple:
    """What math-verify reads in a bare LaTeX answer; its own timeouts are off, they rely on signals."""
    return tuple(parse(f"\\boxed{{{text}}}", parsing_timeout=None))


def judge(gold: str, answer: str) -> str:
    golds, answers = list(parse_answer(gold)), list(parse_answer(answer))
    if not golds:
        return "bad_gold"
    if all(isinstance(answer, str) for answer in answers) and not all(isinstance(gold, str) for gold in golds):
        return "unreadable"  # math-verify hands back what it can't parse as text
    return "correct" if verify(golds, answers, timeout_seconds=None) else "wrong"  # not symmetric: gold first


def main() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    sys.setrecursionlimit(5000)
    print('"ready"', flush=True)
    for line in sys.stdin:
        # A hung computation outlives a killed harness, since it never reads the end of its input. The default action
        # of SIGALRM ends the process even inside C code.
        signal.alarm(ORPHAN_SECONDS)
        print(json.dumps(judge(*json.loads(line))), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main()
