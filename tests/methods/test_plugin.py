"""A rule in a separately installed package: found, checked, listed, and configurable, without an edit here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from methods import all_methods

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, str]:
    """The plug-in installed by pip into a folder of its own; returns the environment that sees it."""
    folder, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source")
    subprocess.run(["cp", "-r", f"{PLUGIN}/.", str(source)], check=True)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    found = subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], capture_output=True, text=True)
    if "BackendUnavailable" in found.stderr or "Cannot import 'setuptools" in found.stderr:
        pytest.skip("building the plug-in needs setuptools in this environment")
    assert found.returncode == 0, found.stderr
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def run(installed, *arguments: str) -> str:
    found = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=installed, cwd=ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_check_runs_its_cases(installed):
    assert run(installed, "-m", "harness.check", str(PLUGIN / "vectors.json")).splitlines()[-1] == "1 of 1"


def test_it_is_listed_named_and_a_schema(installed):
    code = (
        "from methods import all_methods, rule_name; from omegaconf import OmegaConf; from methods.table import page\n"
        "rule = all_methods()['half_clip']\n"
        "config = OmegaConf.merge(OmegaConf.structured(rule), {'eps': 0.2, 'share': 0.5})\n"
        "print(rule_name(OmegaConf.to_object(config)), '`half_clip`' in page())"
    )
    assert run(installed, "-c", code).strip() == "half_clip True"


def test_it_can_be_chosen_and_is_evaluated_beside_other_rules(installed):
    code = (
        "from harness.settings.compose import compose_plan, shipped_rules\n"
        "print(compose_plan(['method=half_clip', 'method.share=0.25']).config.method, shipped_rules()['half_clip'])"
    )
    assert run(installed, "-c", code).strip() == "HalfClip(eps=0.2, share=0.25) HalfClip(eps=0.2, share=0.5)"


def test_without_it_the_rule_is_unknown():
    assert "half_clip" not in all_methods()


def test_a_name_that_is_taken_is_refused(monkeypatch):
    class Point:
        name = "ppo"

        def load(self):
            return object

    monkeypatch.setattr("methods.entry_points", lambda group: [Point()])
    all_methods.cache_clear()
    with pytest.raises(ValueError, match="ppo"):
        all_methods()
    monkeypatch.undo()
    all_methods.cache_clear()
