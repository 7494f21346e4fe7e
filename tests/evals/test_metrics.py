from itertools import combinations
from math import comb

import pytest

from evals.metrics import avg_at_k, length_quantiles, maj_at_k, mean_score, pass_at_k, pass_hat_k, summarise


@pytest.mark.parametrize("n, c", [(4, 0), (4, 1), (5, 3), (6, 6)])
def test_pass_metrics_equal_the_count_over_all_draws(n, c):
    samples = [1] * c + [0] * (n - c)
    for k in range(1, n + 1):
        draws = list(combinations(samples, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-15)
        assert pass_hat_k(n, c, k) == pytest.approx(sum(map(all, draws)) / len(draws), abs=1e-15)


def test_pass_at_k_hand_computed_and_stable():
    assert pass_at_k(16, 3, 1) == pytest.approx(3 / 16)
    assert pass_at_k(10, 2, 5) == pytest.approx(1 - comb(8, 5) / comb(10, 5))
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="k ≤ n"):
        pass_at_k(4, 1, 5)


@pytest.mark.parametrize("counts", [{"7": 2, "8": 2, "9": 1}, {"7": 1, "8": 3, None: 2}, {"7": 3, None: 3}, {"8": 4}])
def test_maj_at_k_equals_the_count_over_all_draws(counts):
    samples = [answer for answer, count in counts.items() for _ in range(count)]

    def share(draw):
        votes = {answer: draw.count(answer) for answer in draw if answer is not None}
        best = [answer for answer, count in votes.items() if count == max(votes.values())]
        return ("7" in best) / len(best) if best else 0.0

    for k in range(1, len(samples) + 1):
        draws = list(combinations(samples, k))
        assert maj_at_k(counts, "7", k) == pytest.approx(sum(map(share, draws)) / len(draws), abs=1e-12)
    assert maj_at_k(counts, "7") == maj_at_k(counts, "7", len(samples))


def test_maj_at_k_without_a_right_sample():
    assert maj_at_k({"8": 3}, None) == 0.0
    assert maj_at_k({None: 3}, "8") == 0.0


def test_summary_of_rows():
    rows = [
        {"n": 4, "num_correct": 1},
        {"n": 4, "num_correct": 4},
    ]
    summary = summarise(rows, ks=[2])
    assert summary == {
        "avg@4": 0.625,
        "num_problems": 2,
        "pass@2": 0.75,
        "pass^2": 0.5,
    }
    with pytest.raises(ValueError, match="one n"):
        summarise([{"n": 4, "num_correct": 1}, {"n": 8, "num_correct": 1}])
    with pytest.raises(ValueError):
        summarise([])


def test_small_ones():
    assert avg_at_k(16, 4) == 0.25
    assert mean_score([0.0, 1.0]) == 0.5
    with pytest.raises(ValueError, match="empty"):
        mean_score([])
    assert length_quantiles([1, 2, 3, 4, 5], (0.5, 1.0)) == {"p50": 3.0, "p100": 5.0}
