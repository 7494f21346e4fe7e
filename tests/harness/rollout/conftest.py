"""The engines that this interpreter can run; vLLM's tests run in an environment of their own (test_vllm_environment.py)."""

from importlib.util import find_spec

import pytest

ENGINES = ["transformers"] + ([pytest.param("vllm", marks=pytest.mark.vllm)] if find_spec("vllm") else [])
collect_ignore = [] if find_spec("vllm") else ["test_vllm.py"]


@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request):
    return request.param
