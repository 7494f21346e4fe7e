"""Where a run was made: the code's difference from its commit, and the command that the user typed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.runs.attempt import StopRequest, attempt
from harness.settings import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository whose only file is taken for this code."""

    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    source = tmp_path / "code.py"
    source.write_text("x = 1\n")
    git("init")
    git("add", "code.py")
    git("commit", "-m", "first")
    monkeypatch.setattr(provenance, "__file__", str(source))
    provenance.git.cache_clear()
    yield source
    provenance.git.cache_clear()


def test_a_clean_checkout_has_a_commit_and_no_diff(checkout):
    assert len(provenance.git("rev-parse", "HEAD")) == 40
    assert provenance.dirty_diff() is None


def test_changed_and_unknown_files_are_in_the_diff(checkout):
    checkout.write_text("x = 2\n")
    (checkout.parent / "new.py").write_text("")
    diff = provenance.dirty_diff()
    assert "-x = 1\n+x = 2" in diff and "# untracked: new.py" in diff


def test_the_diff_can_be_applied(checkout):
    """A blank line of context at its end is part of it."""
    git = ["git", "-C", checkout.parent]
    checkout.write_text("x = 1\n\n")
    subprocess.run([*git, "-c", "user.name=a", "-c", "user.email=a", "commit", "-qam", "blank"], check=True)
    checkout.write_text("x = 2\n\n")
    diff = provenance.dirty_diff()
    subprocess.run([*git, "checkout", "-q", "."], check=True)
    subprocess.run([*git, "apply"], input=diff, text=True, check=True)
    assert checkout.read_text() == "x = 2\n\n"


def test_code_that_lies_untracked_in_some_checkout_has_no_commit(checkout, monkeypatch):
    installed = checkout.parent / "site-packages.py"
    installed.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.git("rev-parse", "HEAD") is None and provenance.dirty_diff() is None


def test_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "code.py"))
    provenance.git.cache_clear()
    assert provenance.git("rev-parse", "HEAD") is None
    provenance.git.cache_clear()


def test_an_attempt_keeps_the_diff(tiny_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.runs.attempt.dirty_diff", lambda: "+changed\n")
    plan = tiny_plan(tmp_path)
    assert attempt(plan, lambda plan, stop: "preempted", StopRequest()) == "preempted"
    assert (plan.folder.path / "logs" / "attempt_1.diff").read_text() == "+changed\n"


def test_workers_know_what_the_user_typed(monkeypatch):
    monkeypatch.setenv(provenance.COMMAND_VARIABLE, "")
    monkeypatch.setattr(sys, "argv", ["harness/__main__.py", "-m", "seed=1,2", "model=a b"])
    provenance.remember_command_line()
    monkeypatch.setattr(sys, "argv", ["worker"])
    assert provenance.command_line() == "python -m harness -m seed=1,2 'model=a b'"
