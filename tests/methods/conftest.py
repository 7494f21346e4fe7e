"""Rules with the settings that ship, the scalar reference, and random batches."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml

from methods import METHODS, Rule, TokenBatch

ROOT = Path(__file__).parents[2]


def shipped_rule(preset: str, **changes) -> Rule:
    """The rule of conf/method/<preset>.yaml; a preset of another preset inherits its values."""
    name, values = resolve(preset)
    return METHODS[name](**(values | changes))


def resolve(preset: str) -> tuple[str, dict]:
    values = yaml.safe_load((ROOT / "conf" / "method" / f"{preset}.yaml").read_text(encoding="utf-8"))
    base = values.pop("defaults")[0]
    if isinstance(base, dict):
        return base["/schema/method@_here_"], values
    name, inherited = resolve(base)
    return name, inherited | values


def random_batch(seed: int, rows: int = 4, width: int = 9, drift: float = 0.4, **changes) -> TokenBatch:
    """float64; holes in the mask, one empty row, every optional field present. `changes` replace fields."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda: torch.randn(rows, width, generator=generator, dtype=torch.float64)
    rollout = -normal().abs() - 0.01
    values = {
        "rollout_logprobs": rollout,
        "logprobs": (rollout + drift * normal()).clamp(max=-1e-3),
        "advantages": normal(),
        "mask": torch.rand(rows, width, generator=generator) < 0.8,
        "divergence": 0.1 * normal().abs(),
        "response_key": torch.randint(1 << 40, (rows,), generator=generator),
        "kl_direction": normal(),
        "horizon": width,
    }
    values["mask"][-1] = False
    return TokenBatch(**(values | changes))


@pytest.fixture(scope="session")
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tests" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shipped():
    return shipped_rule


@pytest.fixture(scope="session")
def batch_of():
    return random_batch


@pytest.fixture(scope="session")
def presets() -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
