"""docs/metrics.md is the table in code; every stored key is defined in it."""

import fnmatch
import re
from pathlib import Path

from harness.metric_table import METRICS, markdown

ROOT = Path(__file__).parent.parent.parent


def test_docs_are_generated_from_the_table():
    assert (ROOT / "docs" / "metrics.md").read_text() == markdown(), "run: python -m harness.metric_table > docs/metrics.md"


def defined(key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, re.sub(r"<[^>]+>", "*", metric.key)) for metric in METRICS)


def test_every_stored_key_is_defined(tmp_path):
    from harness.run import train
    from harness.runs.attempt import StopRequest, attempt
    from harness.settings.compose import compose_plan

    tiny = ["train.steps=1", "train.prompts_per_step=2", "train.group_size=8", "rollout.lag=0", "eval.benchmarks=[]"]
    plan = compose_plan(["method=cppo", f"runs_dir={tmp_path}", "harness.display=none", *tiny])
    assert attempt(plan, train, StopRequest()) == "completed"
    (row,) = plan.folder.rows("metrics")
    assert "trust/delta_b_eff" in row and "method/cppo/c" in row
    assert [key for key in row if key != "step" and not defined(key)] == []
