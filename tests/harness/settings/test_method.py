"""What a rule asks of the other settings is looked at before anything runs."""

import pytest

from harness.settings.compose import compose_config

REFUSED = {
    "method.divergence='tv'": ["method=cppo", "method.divergence=tv"],
    "train.divergence='tv'": ["method=grpo", "train.divergence=tv"],
    "method.delta_b=inf.*prefix_budget=false": ["method=cppo_fixed", "method.delta_b=inf"],
    "method.delta_b_ceiling=inf.*prefix_budget=false": ["method=cppo", "method.delta_b_ceiling=inf"],
    "train.aggregation=.*method=trm .*token-mean": ["method=trm", "method.rejected=removed"],
}


@pytest.mark.parametrize("words", REFUSED)
def test_settings_that_do_not_go_together_are_refused(words):
    with pytest.raises(ValueError, match=words):
        compose_config(REFUSED[words])


def test_removed_responses_go_with_a_token_mean():
    config = compose_config(["method=trm", "method.rejected=removed", "train.aggregation=token-mean"])
    assert config.method.aggregation == config.train.aggregation
    assert compose_config(["method=cppo_no_prefix_budget", "method.adaptive=false", "method.delta_b=null"]).method.delta_b is None
