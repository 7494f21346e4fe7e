"""The sides of the comparison, which all do the same step: the harness, TRL's GRPOTrainer and a plain hand-written loop.

Each side is made once for a workload; calling it does one step and returns its Clock.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.ratio import Clock, now
from benchmarks.workload import GROUP, NUM_UPDATES, PAD, Workload, make_tokenizer, prompt_texts

LEARNING_RATE = 1e-6
TOP_K = 20


class Harness:
    """The step of harness.run, with everything that belongs to it: canary, rewards, rule, divergence, metrics, push."""

    def __init__(self, folder: Path, problems: Path, workload: Workload, *overrides: str):
        from harness.distributed import init_ranks
        from harness.parts import build
        from harness.planning.measure import EverySecondRight
        from harness.settings.compose import compose_plan
        from harness.settings.words import readable

        plan = compose_plan(
            readable([f"model={folder}"])
            + [
                "method=grpo", f"runs_dir={folder / 'runs'}", "train.steps=1000", "train.warmup_updates=0", "rollout.lag=0",
                f"train.prompts_per_step={workload.num_prompts}", f"train.group_size={GROUP}",
                f"train.updates_per_step={NUM_UPDATES}", f"train.lr={LEARNING_RATE}",
                f"train.token_budget={workload.token_budget}", f"rollout.top_k={TOP_K}",
                "data=jsonl", f"data.path={problems}", "data.template=raw", "data.grader=chain", "data.max_prompt_length=16",
                f"data.max_response_length={workload.max_response_length}", "eval=chain", "eval.benchmarks=[]",
                "record.shadow_every=0", "record.batches_every=0", "record.trace_prompts=0", *workload.settings, *overrides,
            ]
        )  # fmt: skip
        plan.folder.path.mkdir(parents=True, exist_ok=True)
        init_ranks(plan.config.cluster.device)
        self.parts, self.num_steps = build(plan), 0
        self.parts.reward_grader = EverySecondRight()

    def __call__(self) -> Clock:
        from harness.run import learn
        from harness.timing import Timer

        self.num_steps += 1
        step, timer = Clock(), Timer()
        with step("step"):
            self.row = learn(self.parts, self.num_steps, timer) | timer.metrics()
        step.tokens = self.row["cost/sampled_tokens"]
        step.seconds["generate"] = timer.seconds["rollout"]
        step.seconds["learn"] = step.seconds["step"] - timer.seconds["rollout"]
        return step

    def close(self) -> None:
        self.parts.engine.close()


class TRL:
    """GRPOTrainer as an experienced user sets it: no gradient checkpointing, no KL term, 4 updates per generation."""

    def __init__(self, folder: Path, workload: Workload, **options):
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, PrinterCallback
        from trl import GRPOTrainer

        self.trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=lambda completion_ids, **rest: [float(i % 2) for i in range(len(completion_ids))],
            args=trl_config(folder, workload, **options),
            train_dataset=Dataset.from_dict({"prompt": prompt_texts(workload)}),
            processing_class=make_tokenizer(workload),
            callbacks=[stopwatch(self)],
        )
        self.trainer.remove_callback(PrinterCallback)  # its numbers would stand among ours
        self.generate = self.trainer._generate_single_turn
        self.trainer._generate_single_turn = self.timed_generate

    def timed_generate(self, *args, **kwargs):
        """Generate and record the seconds, which include the push of the weights with vLLM."""
        with self.step("generate"):
            result = self.generate(*args, **kwargs)
        self.step.tokens += sum(map(len, result[0]))
        return result

    def __call__(self) -> Clock:
        self.step, self.started, self.ended = Clock(tokens=0), None, None
        self.trainer._last_loaded_step = -1  # each call begins at step 0; without this, vLLM would keep its old weights
        self.trainer.train()
        self.step.seconds["step"] = self.ended - self.started
        self.step.seconds["learn"] = self.step.seconds["step"] - self.step.seconds["generate"]
        return self.step

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def trl_config(folder: Path, workload: Workload, **options):
    from trl import GRPOConfig

    on_gpu, num_batches = torch.cuda.is_available(), workload.num_responses // workload.rows_at_once
    return GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=not on_gpu, bf16=on_gpu, fp16=False,
        per_device_train_batch_size=workload.rows_at_once, num_generations=GROUP, steps_per_generation=num_batches,
        gradient_accumulation_steps=num_batches // NUM_UPDATES, max_steps=NUM_UPDATES, num_iterations=1,
        max_completion_length=workload.max_response_length, temperature=1.0, top_p=1.0, top_k=0,
        learning_rate=LEARNING_RATE, lr_scheduler_type="constant", beta=0.0, scale_rewards="none",
        gradient_checkpointing=False, shuffle_dataset=False, dataloader_pin_memory=False,
        report_to=[], logging_strategy="no", save_strategy="no", disable_tqdm=True, **options,
    )  # fmt: skip


def stopwatch(side: TRL):
    """A callback that notes when the trainer's first step begins and its last ends."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        def on_step_begin(self, args, state, control, **rest):
            side.started = side.started or now()

        def on_step_end(self, args, state, control, **rest):
            side.ended = now()

    return Stopwatch()


class HandLoop:
    """A careful loop over transformers that one could write in an afternoon.

    It uses DynamicCache, drops finished rows, records the top 20, packs micro-batches by length, and computes the clipped
    surrogate from materialised log-probs.
    """

    def __init__(self, folder: Path, workload: Workload):
        from transformers import AutoModelForCausalLM

        self.workload = workload
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LEARNING_RATE, weight_decay=0.0)
        self.prompts = torch.tensor(make_tokenizer(workload)(prompt_texts(workload))["input_ids"])
        self.random = torch.Generator().manual_seed(0)

    def __call__(self) -> Clock:
        step = Clock()
        with step("step"):
            with step("generate"):
                tokens, logprobs, lengths = self.sample()
            with step("learn"):
                self.learn(tokens, logprobs, lengths)
        step.tokens = int(lengths.sum())
        return step

    @torch.no_grad()
    def sample(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        from transformers import DynamicCache

        num_rows, limit = self.workload.num_responses, self.workload.max_response_length
        tokens = torch.full((num_rows, limit), PAD)
        logprobs, lengths = torch.zeros(num_rows, limit), torch.full((num_rows,), limit)
        topk = torch.zeros(num_rows, limit, TOP_K), torch.zeros(num_rows, limit, TOP_K, dtype=torch.long)
        rows, ids = torch.arange(num_rows), self.prompts.repeat_interleave(GROUP, 0)
        cache = DynamicCache(config=self.model.config)
        done = torch.zeros(num_rows, dtype=torch.bool)
        for position in range(limit):
            logits = self.model(ids, past_key_values=cache, logits_to_keep=1).logits[:, -1]
            now = logits.log_softmax(-1)
            ids = torch.multinomial(now.exp(), 1, generator=self.random)
            topk[0][rows, position], topk[1][rows, position] = now.topk(TOP_K)
            tokens[rows, position], logprobs[rows, position] = ids[:, 0], now.gather(-1, ids)[:, 0]
            ended = (ids[:, 0] == self.workload.end_id) & ~done
            lengths[rows[ended]] = position + 1
            done |= ended
            if done.all():
                break
            if (~done).sum() < 0.85 * len(done):
                alive = (~done).nonzero()[:, 0]
                cache.batch_select_indices(alive)
                rows, ids, done = rows[alive], ids[alive], done[alive]
        return tokens, logprobs, lengths

    def learn(self, tokens: torch.Tensor, old: torch.Tensor, lengths: torch.Tensor) -> None:
        prompts = self.prompts.repeat_interleave(GROUP, 0)
        advantages = (torch.arange(self.workload.num_responses) % 2 - 0.5).float()
        for minibatch in torch.randperm(self.workload.num_responses, generator=self.random).chunk(NUM_UPDATES):
            order = minibatch[lengths[minibatch].argsort(descending=True)]
            while len(order):
                width = int(lengths[order[0]])
                size = max(1, self.workload.token_budget // (width + prompts.shape[1]))
                rows, order = order[:size], order[size:]
                columns = tokens[rows, :width], old[rows, :width]
                self.backward(prompts[rows], *columns, lengths[rows], advantages[rows], len(minibatch))
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def backward(self, prompts, tokens, old, lengths, advantages, num_responses: int) -> None:
        width = tokens.shape[1]
        logits = self.model(torch.cat([prompts, tokens], 1), use_cache=False, logits_to_keep=width + 1).logits[:, :-1]
        new = -F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(old)
        ratio, advantage = (new - old).exp(), advantages[:, None]
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
        mask = torch.arange(width) < lengths[:, None]
        (-(surrogate * mask).sum() / (num_responses * self.workload.max_response_length)).backward()
