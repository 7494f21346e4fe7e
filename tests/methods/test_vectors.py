"""The shipped cases: written by the scalar reference, passed by the rules."""

from __future__ import annotations

import json

from harness.vectors import check_case, load_cases


def test_the_shipped_file_is_what_the_reference_writes(reference):
    assert load_cases(reference.PATH) == json.loads(json.dumps(reference.all_cases()))


def test_every_rule_has_cases(reference):
    from methods import METHODS

    covered = {"ppo": "ppo_clip", "grpo": "ppo_clip", "trm_max": "trm", "trm_avg": "trm"}
    methods = {case["method"] for case in load_cases(reference.PATH)}
    assert {covered.get(name, name) for name in METHODS} <= methods


def test_every_shipped_case_passes(reference):
    failures = [outcome for case in load_cases(reference.PATH) if (outcome := check_case(case)).failure]
    assert not failures
