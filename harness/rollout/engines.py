"""Makes the rollout engine that the settings name."""

from __future__ import annotations

import torch
from torch import nn

from harness.distributed import ALONE, Ranks
from harness.learning.model import stop_token_ids
from harness.rollout.data_parallel import DataParallelEngine
from harness.rollout.records import RolloutEngine
from harness.settings.config import Config


def make_engine(config: Config, model: nn.Module, tokenizer, ranks: Ranks = ALONE) -> RolloutEngine:
    ranks_per_engine = config.rollout.vllm.tensor_parallel if config.rollout.vllm else 1
    engine = one_engine(config, model, stop_token_ids(model.generation_config, tokenizer), ranks)
    return engine if ranks_per_engine == ranks.size else DataParallelEngine(engine, ranks)


def one_engine(config: Config, model: nn.Module, stop_ids: list[int], ranks: Ranks) -> RolloutEngine:
    if config.rollout.engine == "vllm":
        from harness.rollout.vllm import VllmEngine

        return VllmEngine(model, stop_ids, config, ranks)
    from harness.rollout.decode import TransformersEngine

    return TransformersEngine(model, stop_ids, getattr(torch, config.rollout.precision), config.rollout.max_rows, ranks)
