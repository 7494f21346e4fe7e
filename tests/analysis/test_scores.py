"""Selection rules on curves small enough to work out by hand; the common grid."""


import numpy as np
import pytest
from made_up import write_run

from analysis.load import load
from analysis.runs import InputError
from analysis.scores import SELECTION_RULES, GroupScores, group_scores


def grid(curves_EP, steps, benchmark_P) -> GroupScores:
    names = [str(p) for p in range(len(benchmark_P))]
    benchmarks = [f"b{k}" for k in range(max(benchmark_P) + 1)]
    return GroupScores(None, {}, np.array(steps), benchmarks, np.array(benchmark_P), names, [1], {})


# Two benchmarks: problems 0, 1 | 2, 3. Summaries: step 0: .25, step 10: .75, step 30: .5.
CURVE = np.array([[0.0, 0.5, 0.0, 0.5], [1.0, 0.5, 1.0, 0.5], [0.0, 1.0, 0.0, 1.0]])
BY_HAND = {
    "best": [1.0, 0.5, 1.0, 0.5],
    "final": [0.0, 1.0, 0.0, 1.0],
    "last3": [0.5, 0.75, 0.5, 0.75],  # steps 10 and 30: at step 0 no rule has done anything yet
    # trapezoids: (0 to 10) mean of ends × 10, (10 to 30) × 20, over 30. Problem 0: (.5·10 + .5·20)/30
    "auc": [0.5, (0.5 * 10 + 0.75 * 20) / 30, 0.5, (0.5 * 10 + 0.75 * 20) / 30],
    # problems 0 and 2 choose step 10 (1, 1), at which 1 and 3 score .5; 1 and 3 choose step 30, at which 0 and 2 score 0
    "split_half": [0.0, 0.5, 0.0, 0.5],
}


@pytest.mark.parametrize("rule", SELECTION_RULES)
def test_selection_rules_by_hand(rule):
    group = grid(CURVE, [0, 10, 30], [0, 0, 1, 1])
    np.testing.assert_allclose(SELECTION_RULES[rule].select(CURVE, group), BY_HAND[rule])


def test_samples_are_counted_of_the_evaluations_that_are_averaged(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.25, 0.75], steps=7)
    (group,) = group_scores(load([tmp_path]))
    assert group.summary(group.selected("cppo", "last3")) == pytest.approx(0.75)
    assert set(group.num_samples("cppo", "last3").flat) == {4}
    (before,) = group_scores(load([tmp_path]), t_stop=0)
    assert before.summary(before.selected("cppo", "last3")) == pytest.approx(0.25)


def test_benchmarks_count_alike_whatever_their_size():
    group = grid(None, [0], [0, 0, 0, 1])
    assert group.summary(np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(0.5)
    np.testing.assert_allclose(group.by_benchmark(np.array([1.0, 1.0, 0.0, 0.25])), [2 / 3, 0.25])


def test_scores_of_the_made_up_sweep(results):
    (group,) = results.groups
    assert group.steps_E.tolist() == [0, 7, 14, 21, 28]
    assert group.benchmarks == ["chain4", "chain6", "chain8"] and len(group.problem_ids) == 24
    np.testing.assert_allclose(group.summary(group.selected("cppo", "final")), [0.75, 0.6875, 0.8125])
    np.testing.assert_allclose(group.summary(group.selected("cispo", "best")), [0.5, 0.5, 0.4375])
    assert group.methods["dppo"].seeds == [1, 2] and group.seeds == [1, 2, 3]
    assert group.num_samples("cppo", "last3").tolist() == np.full((3, 24), 12).tolist()


def test_unfinished_runs_are_listed_not_scored(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    for seed, state in ((2, "running"), (3, "preempted"), (4, "failed")):
        write_run(tmp_path, "cppo", seed, [0.5] * 5, state=state, step=14)
    (group,) = group_scores(load([tmp_path]))
    method = group.methods["cppo"]
    assert method.seeds == [1] and [run.state for run in method.others] == ["running", "preempted", "failed"]
    assert group.curves[method.others[0].run_id][0].tolist() == [0, 7, 14]


def test_an_evaluation_that_a_running_run_has_not_finished_is_left_out(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    folder = write_run(tmp_path, "cppo", 2, [0.5] * 5, state="running")
    lines = (folder / "evals.jsonl").read_text().splitlines(keepends=True)
    (folder / "evals.jsonl").write_text("".join(lines[:-5]))
    (group,) = group_scores(load([tmp_path]))
    (running,) = group.methods["cppo"].others
    assert group.steps_E.tolist() == [0, 7, 14, 21, 28] and group.curves[running.run_id][0].tolist() == [0, 7, 14, 21]


def test_a_run_stopped_at_its_collapse_keeps_its_last_evaluation(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "cispo", 1, [0.25, 0.5], state="collapsed", step=9, collapse_step=9)
    (group,) = group_scores(load([tmp_path]))
    assert group.steps_E.tolist() == [0, 7, 14, 21, 28]
    np.testing.assert_allclose(group.summary(group.methods["cispo"].scores_SEP[0]), [0.25, 0.5, 0.5, 0.5, 0.5])


def test_t_stop_limits_the_window(sweep_folder):
    (group,) = group_scores(load([sweep_folder]), t_stop=14)
    assert group.steps_E.tolist() == [0, 7, 14]


def test_runs_asked_different_problems_are_compared_on_the_common_ones(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5, benchmarks={"chain4": 8})
    write_run(tmp_path, "grpo", 1, [0.5] * 5, benchmarks={"chain4": 4})
    (group,) = group_scores(load([tmp_path], allow_mixed=True))
    assert len(group.problem_ids) == 4


def test_runs_without_a_common_problem_are_refused(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5, benchmarks={"chain4": 8})
    write_run(tmp_path, "grpo", 1, [0.5] * 5, benchmarks={"chain6": 8})
    with pytest.raises(InputError, match="default / chain were asked no common problem: give them as different experiments"):
        group_scores(load([tmp_path], allow_mixed=True))
