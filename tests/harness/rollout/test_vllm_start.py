"""What vLLM is started with on which device; a stand-in takes the settings, so that no vLLM is needed."""

import sys
from types import SimpleNamespace

import pytest
import torch

import harness.rollout.vllm as vllm
from harness.distributed import Ranks
from harness.learning.model import load_model
from harness.rollout.engines import one_engine
from harness.settings.compose import compose_config


@pytest.fixture
def started(monkeypatch):
    """The settings of each start. The learner's model is on the CPU then, as when a run is built."""
    settings = []
    monkeypatch.setattr(vllm, "require_vllm", lambda: None)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=lambda **given: settings.append(given)))
    return settings


def start(device: str, *overrides: str) -> None:
    config = compose_config(["rollout=vllm", *overrides])
    one_engine(config, load_model(config.model), [1], Ranks(device=torch.device(device)))


def test_on_a_gpu_it_compiles_splits_prompts_and_may_sleep(started):
    start("cuda", "rollout.vllm.sleep=true")
    assert started[0]["enable_sleep_mode"] and started[0]["enable_chunked_prefill"] and not started[0]["enforce_eager"]


def test_on_a_cpu_it_does_none_of_that(started):
    start("cpu")
    assert not started[0]["enable_chunked_prefill"] and started[0]["enforce_eager"]
    with pytest.raises(ValueError, match=r"rollout\.vllm\.sleep=true"):
        start("cpu", "rollout.vllm.sleep=true")
