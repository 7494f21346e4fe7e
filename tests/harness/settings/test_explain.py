"""What is said of a name that is wrong: the nearest ones first, and in few lines."""

import pytest
from hydra.errors import HydraException, MissingConfigException

from harness.importing import importing
from harness.settings import command
from harness.settings.compose import compose_config
from harness.settings.explain import explain
from methods import METHODS


def said(*words: str) -> str:
    with pytest.raises(HydraException) as caught:
        compose_config(words)
    return explain(caught.value)


def test_a_choice_that_is_not_there():
    first, *choices = said("method=cpo").splitlines()
    assert first.startswith("error: method=cpo: did you mean ") and "cppo" in first
    assert len(choices) < 20 and all(f" {name}" in "\n".join(choices) for name in METHODS)
    assert said("experiment=qwen3_8b").splitlines()[0] == "error: experiment=qwen3_8b: did you mean qwen3_8b_base or qwen3_1p7b?"


def test_a_group_is_no_section():
    text = said("experiment.name=rec")
    assert "experiment is a group: choose with experiment=NAME" in text and "did you mean" not in text
    assert "did you mean experiment?" in said("expriment=study")
    assert "did you mean steps?" in said("train.stps=3")


@pytest.mark.parametrize("word", ["+train.stps=3", "++train.stps=3"])
def test_a_key_that_is_not_there_cannot_be_added(word):
    assert "+train.stps" not in said("train.stps=3")
    with pytest.raises(ValueError, match=r"^train.stps: there is no such setting\n  did you mean steps\?"):
        compose_config([word])
    with pytest.raises(ValueError, match=r"^method.scope: there is no such setting$"):  # no field: a fact about the rule's class
        compose_config(["+method.scope=token"])


def test_a_rule_without_its_yaml(monkeypatch):
    monkeypatch.setitem(METHODS, "ours", METHODS["ppo"])
    assert "write conf/method/ours.yaml" in said("method=ours")


def test_a_rule_that_is_not_registered():
    error = MissingConfigException("", "schema/method/ours", ["cppo"])  # of conf/method/ours.yaml
    assert "no rule of that name is registered: add a line to METHODS" in explain(error)


def test_ctrl_c_during_the_imports_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended, importing():
        raise KeyboardInterrupt
    assert ended.value.code == 130 and capsys.readouterr().err == "stopped before anything had begun\n"


def test_other_commands_say_the_same(capsys):
    with pytest.raises(SystemExit) as ended:
        command.exit_with(lambda words: compose_config(["method=cpo"]))
    assert ended.value.code == said("method=cpo")
