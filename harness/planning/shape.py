"""Derives a model's sizes from its config, without weights: parameters, layers, and bytes kept for the backward pass."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn

from harness.learning.model import check_model, model_folder, naming, num_experts
from harness.settings.config import ModelConfig


def shape_config(config: ModelConfig):
    """The transformers config of model.path: from a local folder, else a shape that ships here (Qwen3 family), else the hub."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    shipped = files("harness") / "assets" / "shapes" / f"{config.path.rpartition('/')[2].removesuffix('-Base')}.json"
    if not Path(model_folder(config.path)).is_dir() and shipped.is_file():
        return AutoConfig.for_model(**json.loads(shipped.read_text()))
    check_model(config)
    with naming(config.path):
        found = AutoConfig.from_pretrained(model_folder(config.path), revision=config.revision)
        if type(found) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"a {found.model_type} model is no causal LM")
    return found


@dataclass
class Shape:
    """Counts of parameters and sizes of a causal LM, from its transformers config."""

    config: object

    @cached_property
    def skeleton(self) -> nn.Module:
        return self._model("meta")

    @cached_property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.skeleton.parameters())

    @cached_property
    def num_active(self) -> int:
        """Parameters that one token uses; of a mixture's experts only those to which it is routed."""
        experts = num_experts(self.config)
        if not experts:
            return self.num_parameters
        names = self.skeleton.named_parameters()
        in_experts = sum(parameter.numel() for name, parameter in names if ".experts." in name)
        return self.num_parameters - in_experts + in_experts * self.config.num_experts_per_tok // experts

    @cached_property
    def largest_layer(self) -> int:
        """Parameters of the largest layer."""
        return max(sum(p.numel() for p in layer.parameters()) for layer in self.skeleton.base_model.layers)

    @cached_property
    def outside_layers(self) -> int:
        in_layers = sum(p.numel() for layer in self.skeleton.base_model.layers for p in layer.parameters())
        return self.num_parameters - in_layers

    @property
    def num_layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    def kv_elements(self) -> int:
        """Numbers that one token adds to the KV cache."""
        heads = self.config.num_attention_heads
        head_dim = getattr(self.config, "head_dim", None) or self.config.hidden_size // heads
        return 2 * self.num_layers * (getattr(self.config, "num_key_value_heads", None) or heads) * head_dim

    def activation_bytes(self, rows: int, length: int, dtype: torch.dtype, autocast: torch.dtype | None) -> int:
        """Bytes that one forward pass of [rows, length] tokens keeps for the backward pass, counted on fake tensors."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
            return tensor

        with FakeTensorMode(), torch.device("cpu"):
            model = dense_equivalent(self)._model("cpu", dtype).train()
            weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
            with (
                torch.autocast("cpu", autocast) if autocast else nullcontext(),
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            ):
                hidden = model.base_model(torch.zeros(rows, length, dtype=torch.long), use_cache=False).last_hidden_state
            kept.pop(hidden.untyped_storage()._cdata, None)
            return sum(storage.nbytes() for key, storage in kept.items() if key not in weights)

    def _model(self, device: str, dtype: torch.dtype | None = None) -> nn.Module:
        from transformers import AutoModelForCausalLM

        with torch.device(device):
            return AutoModelForCausalLM.from_config(self.config, attn_implementation="sdpa", dtype=dtype)


def dense_equivalent(shape: Shape) -> Shape:
    """A dense model with the active width of a mixture of experts, since routing is unknown without weights; else `shape`."""
    from transformers import Qwen3Config

    config = shape.config
    if not getattr(config, "num_experts_per_tok", None):
        return shape
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    same = {name: getattr(config, name) for name in (*names, "head_dim", "max_position_embeddings", "tie_word_embeddings")}
    width = getattr(config, "moe_intermediate_size", config.intermediate_size) * config.num_experts_per_tok
    return Shape(Qwen3Config(**same, intermediate_size=width))
