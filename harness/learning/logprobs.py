"""Log-probs of given tokens under a causal language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.distributed import ALONE, Ranks
from harness.learning.head import TokenLogprobs, token_logprobs

SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")  # the scale's name in the configs of different model families


class Scorer(nn.Module):
    """A causal LM whose forward returns log-probs of given tokens instead of logits. ValueError for an unknown kind of head."""

    def __init__(self, model: nn.Module, chunk: int, ranks: Ranks = ALONE):
        super().__init__()
        self.model, self.chunk = model, chunk
        self.softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self.scale = ranks.on_first(lambda: head_scale(model, self.softcap))  # the other ranks hold no weights yet

    def forward(self, inputs: Tensor, predicts: Tensor, tokens: Tensor, topk_ids: Tensor) -> TokenLogprobs:
        """inputs [b, L] token ids; predicts [b, L] bool, the N positions that predict `tokens` [N]; topk_ids [N, K]."""
        hidden = self.model.base_model(inputs, use_cache=False).last_hidden_state
        scaled = hidden[predicts] if self.scale == 1 else hidden[predicts] * self.scale
        return token_logprobs(scaled, self.model.get_output_embeddings(), tokens, topk_ids, self.chunk, self.softcap)


@torch.no_grad()
def head_scale(model: nn.Module, softcap: float | None) -> float:
    """The factor by which a model scales its hidden states before its head (Granite, Cohere, …); 1 for most models.

    Some families multiply by the number in their config and others divide by it. Both are tried, and the factor that reproduces
    the model's own logits is returned. ValueError if none does.
    """
    config = model.config.get_text_config()
    ids = torch.arange(min(8, config.vocab_size), device=model.device)[None]
    hidden, logits = model.base_model(ids, use_cache=False).last_hidden_state, model(ids, use_cache=False).logits.float()
    named = [scale for name in SCALES if (scale := getattr(config, name, None))]
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.05
    for scale in (1.0, *named, *(1 / scale for scale in named)):
        recomputed = model.get_output_embeddings()(hidden * scale).float()
        recomputed = recomputed if softcap is None else softcap * (recomputed / softcap).tanh()
        if (recomputed - logits).abs().max() <= tolerance * logits.abs().max():
            return scale
    raise ValueError(
        f"model.path: the logits of {type(model).__name__} are not its output embeddings times its last hidden state, "
        f"which harness/learning/logprobs.py computes log-probs from: choose another model"
    )
