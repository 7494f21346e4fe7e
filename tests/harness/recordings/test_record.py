"""What a run records: formats, sizes, and that recording changes nothing."""

from __future__ import annotations

import json
from math import inf, nan
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from harness.learning.experience import response_keys
from harness.parts import build
from harness.rollout.records import request_seed
from harness.run import learn
from harness.telemetry.recording import batch_path, number, numbers, read_minibatch, recording_due, trace_path, write_minibatch
from harness.telemetry.shadow import Minibatch
from harness.timing import Timer
from methods import METHODS


def without_time(metrics: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in metrics]


def test_recording_changes_nothing_but_time(recorded, unrecorded):
    assert without_time(recorded.metrics) == without_time(unrecorded.metrics)
    weights = zip(recorded.parts.model.parameters(), unrecorded.parts.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    files = lambda run: {path.name for path in run.folder.path.iterdir()}
    assert files(recorded) - files(unrecorded) == {"shadow.jsonl", "traces", "batches"}
    assert "record" in recorded.timers[1].seconds and "record" not in unrecorded.timers[1].seconds


def test_one_row_for_each_step_and_rule(recorded):
    rows = recorded.folder.rows("shadow")
    assert [(row["step"], row["rule"]) for row in rows] == [(step, rule) for step in (1, 2) for rule in ("own", *METHODS)]
    assert all(row["update"] == 2 and row["tokens"] > 0 for row in rows)
    by_rule = {row["rule"]: row for row in rows if row["step"] == 2}
    shares = lambda rule: {key: value for key, value in by_rule[rule].items() if key != "rule"}
    assert shares("own") == shares("cppo")  # the run's settings are the shipped ones
    assert by_rule["pg_is"]["mass_of_is"] == by_rule["pg_is"]["kept"] == 1
    assert len({row["kept"] for row in by_rule.values()}) > 8, "rules must have something to disagree about"


def test_a_run_that_goes_on_from_its_checkpoint_records_the_same_again(recorded):
    """As after a crash behind step 2: its rows stand there already, and its files."""
    folder = recorded.folder.path
    files = [batch_path(folder, 2), trace_path(folder, 2)]
    before = recorded.folder.rows("shadow"), [path.read_bytes() for path in files]
    parts = build(recorded.parts.plan)
    assert parts.done == 1
    learn(parts, 2, Timer())
    lines = (folder / "shadow.jsonl").read_text().splitlines()
    assert len(lines) == len(before[0]) + 1 + len(METHODS)
    assert recorded.folder.rows("shadow") == before[0]
    assert [path.read_bytes() for path in files] == before[1]


def test_intervals():
    record = SimpleNamespace(shadow_every=4, batches_every=0)
    assert [step for step in range(1, 10) if recording_due(record, step)] == [4, 8]
    record = SimpleNamespace(shadow_every=0, batches_every=3)
    assert [step for step in range(1, 10) if recording_due(record, step)] == [3, 6, 9]


def pair_numbers(minibatch: Minibatch) -> dict[str, torch.Tensor]:
    return {name: getattr(minibatch.pair, name)[minibatch.mask] for name in ("tokens", "logprobs", "topk_ids", "topk_logprobs")}


def test_a_minibatch_comes_back_bit_for_bit(recorded, tmp_path):
    minibatch, facts = read_minibatch(batch_path(recorded.folder.path, 2))
    assert facts == {
        "format": 1, "step": 2, "update": 2, "rule": "cppo", "preset": "cppo",
        "aggregation": "seq-mean-token-sum-norm", "anchor": "rollout", "divergence": "topk_tv",
        "vocab_size": minibatch.pair.vocab_size, "horizon": 90, "num_responses": len(minibatch), "num_dropped": 0,
    }  # fmt: skip
    write_minibatch(tmp_path / "again.safetensors", minibatch, {"step": 2}, 32)
    again, _ = read_minibatch(tmp_path / "again.safetensors")
    assert all(torch.equal(value, pair_numbers(again)[name]) for name, value in pair_numbers(minibatch).items())
    assert torch.equal(again.own.keep, minibatch.own.keep) and torch.equal(again.own.weight, minibatch.own.weight)
    assert torch.equal(again.advantages, minibatch.advantages) and torch.equal(again.response_key, minibatch.response_key)
    assert minibatch.response_key.diff().min() > 0


def test_whole_responses_are_left_out_to_stay_below_the_limit(recorded, tmp_path):
    path = batch_path(recorded.folder.path, 2)
    minibatch, _ = read_minibatch(path)
    half = path.stat().st_size / 2e6
    write_minibatch(tmp_path / "half.safetensors", minibatch, {"step": 2}, half)
    fewer, facts = read_minibatch(tmp_path / "half.safetensors")
    assert 0 < len(fewer) < len(minibatch)
    assert (facts["num_responses"], facts["num_dropped"]) == (len(fewer), len(minibatch) - len(fewer))
    header = 4096  # names, shapes and metadata come on top of the tensors
    assert (tmp_path / "half.safetensors").stat().st_size <= half * 1e6 + header
    assert torch.equal(fewer.pair.tokens[fewer.mask], minibatch.pair.tokens[: len(fewer)][minibatch.mask[: len(fewer)]])


def test_a_limit_below_one_response_writes_nothing(recorded, tmp_path, caplog):
    minibatch, _ = read_minibatch(batch_path(recorded.folder.path, 2))
    write_minibatch(tmp_path / "none.safetensors", minibatch, {"step": 2}, 1e-4)
    assert not list(tmp_path.iterdir())
    assert "record.batch_max_mb" in caplog.text


def test_another_format_is_refused(recorded, tmp_path, monkeypatch):
    minibatch, _ = read_minibatch(batch_path(recorded.folder.path, 2))
    monkeypatch.setattr("harness.telemetry.recording.FORMAT", 2)
    write_minibatch(tmp_path / "new.safetensors", minibatch, {}, 32)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format 2"):
        read_minibatch(tmp_path / "new.safetensors")


def test_no_pickle(recorded):
    with safe_open(batch_path(recorded.folder.path, 1), "pt") as file:
        assert {"mask", "tokens", "topk_ids", "rollout_topk_logprobs", "keep"} <= set(file.keys())


@pytest.fixture(scope="module")
def trace(recorded) -> dict:
    return json.loads(trace_path(recorded.folder.path, 2).read_text())


def test_a_trace_names_rules_settings_and_responses(trace):
    assert (trace["format"], trace["step"], trace["update"], trace["divergence"]) == (1, 2, 2, "topk_tv")
    assert trace["rules"]["own"] == trace["rules"]["cppo"]
    assert trace["rules"]["cppo"]["settings"]["delta"] == 0.15
    assert 1 <= len({one["problem_id"] for one in trace["responses"]}) <= 2
    assert 1 <= len(trace["responses"]) <= 4
    for one in trace["responses"]:
        assert len(one["tokens"]) == len(one["token_ids"])
        assert one["reward"] in (0, 1) and (one["advantage"] > 0) == (one["reward"] == 1)
        assert one["rules"].keys() == trace["rules"].keys() == {"own", *METHODS}


def test_a_trace_says_what_the_minibatch_says(recorded, trace):
    """The same token ids, and each series to six digits; the seeded key finds the row."""
    minibatch, _ = read_minibatch(batch_path(recorded.folder.path, 2))
    rows = {
        tuple(ids[mask].tolist()): row for row, (ids, mask) in enumerate(zip(minibatch.pair.tokens, minibatch.mask, strict=True))
    }
    for one in trace["responses"]:
        row = rows[tuple(one["token_ids"])]
        valid = minibatch.mask[row]
        for name, values in (
            ("logprobs", minibatch.pair.logprobs),
            ("ratio", minibatch.plain.ratio),
            ("divergence", minibatch.divergence),
        ):
            assert spread(one[name], valid.sum()) == pytest.approx(values[row][valid].tolist(), rel=1e-5, abs=1e-30)
        seed = request_seed(1, "train", 2, one["problem_id"], one["sample"])
        assert response_keys([seed]).item() == minibatch.response_key[row]
        own = one["rules"]["own"]
        assert spread(own["keep"], valid.sum()) == minibatch.own.keep[row][valid].tolist()
        aux = own["aux"]
        drift = [before + z for before, z in zip(spread(aux["S_prev"], valid.sum()), spread(aux["Z"], valid.sum()), strict=True)]
        assert drift[:-1] == pytest.approx(spread(aux["S_prev"], valid.sum())[1:], rel=1e-3, abs=1e-6)
        assert isinstance(aux["delta_b"], float)


def spread(series, length) -> list:
    return series if isinstance(series, list) else [series] * int(length)


def test_prompt_and_answer_belong_together(recorded, trace):
    """A response's text is the one that was graded: `a+b…:` followed by worked steps of those very numbers."""
    for one in trace["responses"]:
        assert one["prompt"].endswith(":")
        problem = next(p for p in recorded.parts.queue.problems(2) if p.id == one["problem_id"])
        assert one["prompt"].removesuffix(":") == problem.text.removesuffix(":")
        assert (one["reward"] == 1) == ("".join(one["tokens"]).split("#")[-1].startswith(problem.answer))


def test_numbers_are_short_and_finite():
    assert [number(value) for value in (1.0, -0.0, 1 / 3, 1e-12 / 3, nan, inf)] == [1, 0, 0.333333, 3.33333e-13, None, None]
    assert numbers(torch.tensor([0.5, 0.5, 0.5])) == 0.5
    assert numbers(torch.tensor([0.5, 0.25])) == [0.5, 0.25]
    assert numbers(torch.tensor(0.25)) == 0.25


def test_a_trace_is_strict_json(recorded):
    def refuse(text):
        raise AssertionError(text)

    paths = list((recorded.folder.path / "traces").iterdir())
    assert paths
    for path in paths:
        json.loads(path.read_text(), parse_constant=refuse)
