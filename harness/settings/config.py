"""Defines type and range of every setting; the values are in conf/*.yaml, each in one place.

A key is scientific unless its field is declared `operational()`. Operational keys decide where and how a run executes, never
its results. Only scientific keys are hashed (harness/settings/identity.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from evals.graders import GRADERS, is_grader
from harness.distributed import world_size
from harness.files import MAX_STEP
from harness.learning.divergence import DIVERGENCES
from harness.learning.loss import AGGREGATIONS
from harness.store import flatten
from methods.base import Rule

CONF = Path(__file__).parents[2] / "conf"  # the values
DEVICES = ("auto", "cpu", "cuda")


def operational() -> Any:
    """A field for a key that decides where or how a run executes, not what it computes; it is not hashed."""
    return field(default=MISSING, metadata={"operational": True})


def newer() -> Any:
    """A field for a scientific key added after runs had been made: not hashed while null, so that those runs keep their names."""
    return field(default=MISSING, metadata={"newer": True})


def require(condition: bool, key: str, value: object, remedy: str) -> None:
    if not condition:
        raise ValueError(f"{key}={value!r}: {remedy}")


@contextmanager
def naming_key(key: str) -> Iterator[None]:
    """A ValueError of what `key` names begins with the key."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def one_of(key: str, value: str, options) -> None:
    require(value in options, key, value, f"choose one of {', '.join(options)}")


def known_grader(key: str, name: str) -> None:
    require(is_grader(name), key, name, f"choose one of {', '.join(GRADERS)}, or two of them joined by +")


def positive(section: str, config: object, *keys: str) -> None:
    for key in keys:
        require(getattr(config, key) > 0, f"{section}.{key}", getattr(config, key), "must be above 0")


def not_negative(section: str, config: object, *keys: str) -> None:
    for key in keys:
        require(getattr(config, key) >= 0, f"{section}.{key}", getattr(config, key), "must be 0 or more")


@dataclass
class ModelConfig:
    path: str = MISSING  # "builtin:chain", a local folder, or a hub id
    revision: str | None = MISSING  # of a hub id
    dtype: str = MISSING  # float32 | bfloat16: the learner's weights
    chat_template: bool = MISSING  # put prompts through the tokenizer's chat template

    def __post_init__(self):
        one_of("model.dtype", self.dtype, ("float32", "bfloat16"))


@dataclass
class CollapseConfig:
    """Thresholds of the written rule (harness/telemetry/collapse.py), the same for every method."""

    window: float = MISSING  # share of train.steps: for how long reward must stay low, and the steps of the reference mismatch
    min_window: int = MISSING  # least window in steps; in a shorter one a single bad batch would decide
    reward_share: float = MISSING  # of the running maximum of the moving average
    entropy_floor: float = MISSING  # nat per token
    entropy_rise: float = MISSING  # times the first step's entropy
    truncated_share: float = MISSING
    length_share: float = MISSING  # of the running median length
    mismatch_rise: float = MISSING  # times the median of the first window
    mismatch_floor: float = MISSING  # k3 in nat below which a rise is rounding noise
    eval_share: float = MISSING  # of the best evaluation, twice in a row

    def __post_init__(self):
        require(0 < self.window <= 1, "train.collapse.window", self.window, "a share of train.steps in (0, 1]")
        positive("train.collapse", self, "min_window")
        not_negative("train.collapse", self, "reward_share", "entropy_floor", "entropy_rise", "truncated_share")
        not_negative("train.collapse", self, "length_share", "mismatch_rise", "mismatch_floor", "eval_share")


@dataclass
class TrainConfig:
    steps: int = MISSING
    prompts_per_step: int = MISSING
    group_size: int = MISSING  # responses per prompt
    updates_per_step: int = MISSING  # minibatches; each response is used once
    lr: float = MISSING
    warmup_updates: int = MISSING  # linear, then constant
    betas: list[float] = MISSING
    adam_eps: float = MISSING
    weight_decay: float = MISSING
    clip_norm: float = MISSING
    anchor: str = MISSING  # rollout: ratio = learner / rollout policy; old: learner / learner at the start of the step
    advantage_norm: str = MISSING  # none | std
    aggregation: str = MISSING
    divergence: str = MISSING  # the per-token score of the trust/* metrics, the same for every method
    precision: str = MISSING  # float32 | bfloat16: autocast of the learner's forward
    token_budget: int = MISSING  # most positions of a micro-batch, padding included
    logprob_chunk: int = MISSING  # tokens whose logits are in memory at the same time
    on_collapse: str = MISSING  # mark | stop
    collapse: CollapseConfig = MISSING

    def __post_init__(self):
        counts = ("steps", "prompts_per_step", "group_size", "updates_per_step", "token_budget", "logprob_chunk")
        positive("train", self, *counts, "lr", "clip_norm", "adam_eps")
        require(self.steps < MAX_STEP, "train.steps", self.steps, f"must be below {MAX_STEP}")
        not_negative("train", self, "warmup_updates", "weight_decay")
        betas_valid = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(betas_valid, "train.betas", self.betas, "two numbers in [0, 1)")
        require(self.group_size >= 2, "train.group_size", self.group_size, "a group needs 2 responses or more")
        one_of("train.anchor", self.anchor, ("rollout", "old"))
        one_of("train.advantage_norm", self.advantage_norm, ("none", "std"))
        one_of("train.aggregation", self.aggregation, tuple(AGGREGATIONS))
        one_of("train.divergence", self.divergence, tuple(DIVERGENCES))
        one_of("train.precision", self.precision, ("float32", "bfloat16"))
        one_of("train.on_collapse", self.on_collapse, ("mark", "stop"))


@dataclass
class DataConfig:
    kind: str = MISSING  # chain: the embedded task; problems: a file of real problems; none: evaluation alone
    path: str | None = MISSING  # JSON Lines or Parquet
    max_prompt_length: int = MISSING  # tokens that this data needs; the default of rollout's limits
    max_response_length: int = MISSING
    template: str = MISSING  # evals.prompts.TEMPLATES or a file
    grader: str = MISSING  # evals.graders.GRADERS
    allow_duplicates: bool = MISSING
    allow_overlap: list[str] = MISSING  # benchmarks that the training data may contain
    operations: list[int] | None = newer()  # chain: [fewest, most] per training problem; null: evals.chain.TRAIN_OPERATIONS

    def __post_init__(self):
        one_of("data.kind", self.kind, ("chain", "problems", "none"))
        needs_path = self.kind == "problems" and not self.path
        require(not needs_path, "data.path", self.path, "data=jsonl needs data.path=FILE (JSON Lines or Parquet)")
        is_read = self.kind == "problems" or not self.path
        require(is_read, "data.path", self.path, "read with data=jsonl alone: add data=jsonl, or leave data.path out")
        known_grader("data.grader", self.grader)
        ascending = self.operations is None or (len(self.operations) == 2 and 1 <= self.operations[0] <= self.operations[1])
        require(ascending, "data.operations", self.operations, "fewest and most, such as [4,8], or null")


@dataclass
class VllmConfig:
    """How vLLM runs. These keys do not change what is sampled, beyond float rounding."""

    max_logprobs: int = MISSING  # ids that it may return per position
    kv_cache_gb: float = MISSING  # memory for keys and values, in 10^9 bytes
    sleep: bool = MISSING  # on a GPU: free the engine's weights and cache while the learner trains
    tensor_parallel: int = MISSING  # ranks that share one engine; started by torchrun or SLURM, not by vLLM

    def __post_init__(self):
        positive("rollout.vllm", self, "max_logprobs", "kv_cache_gb", "tensor_parallel")


@dataclass
class RolloutConfig:
    engine: str = MISSING  # transformers | vllm
    lag: int = MISSING  # steps between sampling a batch and learning from it
    top_k: int = MISSING  # ids recorded per position; the whole vocabulary when it is smaller
    max_prompt_length: int = MISSING
    max_response_length: int = MISSING
    temperature: float = MISSING
    top_p: float = MISSING
    precision: str = MISSING  # float32 | float16 | bfloat16
    max_rows: int = MISSING  # responses decoded side by side
    canary_rows: int = MISSING  # fresh responses scored by engine and learner at equal weights, each step
    vllm: VllmConfig | None = operational()  # settings of engine=vllm; null for other engines

    def __post_init__(self):
        positive("rollout", self, "top_k", "max_prompt_length", "max_response_length", "max_rows", "canary_rows")
        not_negative("rollout", self, "lag")
        one_of("rollout.engine", self.engine, ("transformers", "vllm"))
        one_of("rollout.precision", self.precision, ("float32", "float16", "bfloat16"))
        settled = (self.engine == "vllm") == (self.vllm is not None)
        require(settled, "rollout.engine", self.engine, "choose an engine with rollout=transformers or rollout=vllm")
        limit = self.vllm.max_logprobs if self.vllm else self.top_k
        require(self.top_k <= limit, "rollout.top_k", self.top_k, f"above rollout.vllm.max_logprobs={limit}: raise that one too")
        untruncated = self.temperature == 1.0 and self.top_p == 1.0
        require(
            untruncated,
            "rollout.temperature, rollout.top_p",
            (self.temperature, self.top_p),
            "training rollouts are sampled at temperature 1 without top-p, else the ratio compares different policies; "
            "evaluation has its own eval.temperature and eval.top_p",
        )


@dataclass
class MismatchConfig:
    """Limits on the difference between engine and learner at equal weights (docs/rollouts.md)."""

    action: str = operational()  # warn | mark | stop: what happens beyond token_error or kl
    token_error: float = operational()  # mean multiplicative error of a token's probability, ≥ 1; dense models
    token_error_moe: float = operational()  # the same for mixtures of experts
    kl: float = operational()  # nat per token, k3
    canary_tokens: int = operational()  # longest canary response after a push
    canary_float32: float = operational()  # nat: mean |log-prob error| of a canary above which a run stops; both sides in float32
    canary_bfloat16: float = operational()  # the same where either side has 16 bits

    def __post_init__(self):
        one_of("mismatch.action", self.action, ("warn", "mark", "stop"))
        positive("mismatch", self, "kl", "canary_tokens", "canary_float32", "canary_bfloat16")
        for key in ("token_error", "token_error_moe"):
            require(getattr(self, key) > 1, f"mismatch.{key}", getattr(self, key), "must be above 1, the value of equal policies")


@dataclass
class EvalConfig:
    benchmarks: list[str] = MISSING  # evals.benchmarks.BENCHMARKS, or jsonl:FILE
    root: str | None = MISSING  # folder with the benchmark files
    n: int = MISSING  # samples per problem
    temperature: float = MISSING
    top_p: float = MISSING
    max_response_length: int = MISSING
    every: int = MISSING  # steps; also at step 0 and after the last
    template: str = MISSING
    grader: str = MISSING
    max_rows: int = MISSING

    def __post_init__(self):
        positive("eval", self, "n", "every", "temperature", "max_response_length", "max_rows")
        require(0 < self.top_p <= 1, "eval.top_p", self.top_p, "a probability in (0, 1]")
        different = len(set(self.benchmarks)) == len(self.benchmarks)
        require(different, "eval.benchmarks", self.benchmarks, "name each once: a second time its samples would be the same")
        known_grader("eval.grader", self.grader)


@dataclass
class ClusterConfig:
    executor: str = operational()  # local | debug
    processes: int | None = operational()  # workers side by side; null: one for each core, or for each GPU
    threads: int | None = operational()  # per process
    ranks: int | None = operational()  # processes of one run, which share model and rows (docs/distributed.md)
    device: str = operational()  # auto: a GPU where there is one | cpu | cuda
    activation_checkpointing: bool = operational()  # recompute each layer's activations in the backward pass
    offload_optimizer: bool = operational()  # keep the optimizer's moments in host memory

    def __post_init__(self):
        one_of("cluster.executor", self.executor, ("local", "debug"))
        one_of("cluster.device", self.device, DEVICES)
        for key in ("threads", "ranks"):
            require((getattr(self, key) or 0) > 0, f"cluster.{key}", getattr(self, key), "must be above 0")
        require(self.processes is None or self.processes > 0, "cluster.processes", self.processes, "must be above 0, or null")


@dataclass
class SlurmConfig(ClusterConfig):
    """cluster=slurm: what an array of jobs requests. Names as in hydra-submitit-launcher; null leaves a choice to the site."""

    wait: bool = operational()  # show the live table until the jobs have ended
    offline: bool = operational()  # for nodes without a network: no hub is contacted, wandb writes files
    submitit_folder: str = operational()  # each submission makes its own folder in this one
    name: str = operational()
    partition: str | None = operational()
    qos: str | None = operational()
    account: str | None = operational()
    nodes: int = operational()
    tasks_per_node: int = operational()  # processes of one run on each node
    cpus_per_task: int | None = operational()
    gpus_per_node: int | None = operational()
    gpus_per_task: int | None = operational()
    cpus_per_gpu: int | None = operational()
    mem_gb: float | None = operational()  # per node
    mem_per_gpu: str | None = operational()
    mem_per_cpu: str | None = operational()
    gres: str | None = operational()
    constraint: str | None = operational()
    exclude: str | None = operational()
    comment: str | None = operational()
    timeout_min: int = operational()  # time limit of one attempt
    signal_delay_s: int = operational()  # before the time limit: time to finish a step and save a checkpoint
    max_num_timeout: int | None = operational()  # most requeues after such a signal; null: no limit
    array_parallelism: int = operational()  # jobs of one array that run at the same time
    stderr_to_stdout: bool = operational()
    setup: list[str] | None = operational()  # lines of the batch script before the run
    srun_args: list[str] | None = operational()
    additional_parameters: dict[str, Any] = operational()  # further options of sbatch

    def __post_init__(self):
        one_of("cluster.executor", self.executor, ("slurm",))
        one_of("cluster.device", self.device, DEVICES)
        positive("cluster", self, "nodes", "tasks_per_node", "timeout_min", "signal_delay_s", "array_parallelism")
        optional = ("threads", "cpus_per_task", "gpus_per_node", "gpus_per_task", "cpus_per_gpu", "mem_gb")
        positive("cluster", self, *[key for key in optional if getattr(self, key) is not None])
        limit = 60 * self.timeout_min
        remedy = f"must be below the time limit (cluster.timeout_min={self.timeout_min}: {limit} s): the run is to be warned"
        require(self.signal_delay_s < limit, "cluster.signal_delay_s", self.signal_delay_s, remedy)
        num_tasks = self.nodes * self.tasks_per_node
        require(self.ranks in (None, num_tasks), "cluster.ranks", self.ranks, "is nodes * tasks_per_node here: leave it out")
        self.ranks = num_tasks
        plain = "%" not in self.submitit_folder
        require(plain, "cluster.submitit_folder", self.submitit_folder, "a plain folder: every submission makes its own in it")


@dataclass
class TrackerConfig:
    kind: str = operational()  # none | wandb
    mode: str = operational()  # of wandb: offline | online
    project: str = operational()
    entity: str | None = operational()  # null: the account's default

    def __post_init__(self):
        one_of("tracker.kind", self.kind, ("none", "wandb"))
        one_of("tracker.mode", self.mode, ("offline", "online"))


@dataclass
class CheckpointConfig:
    every: int = operational()  # steps; also after the last step, and when an evaluation is the best so far
    keep_last: int = operational()
    keep_best: int = operational()  # checkpoints with the best evaluation means, kept beside the last ones; 0: none

    def __post_init__(self):
        positive("checkpoint", self, "every", "keep_last")
        not_negative("checkpoint", self, "keep_best")


@dataclass
class RecordConfig:
    samples: bool = operational()  # keep the responses of every evaluation, compressed
    shadow_every: int = operational()  # steps between evaluations of every rule on the same tokens; 0: never
    trace_prompts: int = operational()  # prompts whose responses are traced token by token at those steps; 0: none
    trace_responses: int = operational()  # traced responses per traced prompt
    batches_every: int = operational()  # steps between recordings of a whole minibatch; 0: never
    batch_max_mb: float = operational()  # size limit of a recorded minibatch in 10^6 bytes; responses beyond it are left out

    def __post_init__(self):
        not_negative("record", self, "shadow_every", "trace_prompts", "trace_responses", "batches_every")
        positive("record", self, "batch_max_mb")


@dataclass
class HarnessConfig:
    dry_run: bool = operational()
    display: str = operational()  # auto | live | plain | none

    def __post_init__(self):
        one_of("harness.display", self.display, ("auto", "live", "plain", "none"))


@dataclass
class Config:
    """All settings of one run."""

    method: Rule = MISSING
    model: ModelConfig = MISSING
    train: TrainConfig = MISSING
    data: DataConfig = MISSING
    rollout: RolloutConfig = MISSING
    eval: EvalConfig = MISSING
    checkpoint: CheckpointConfig = operational()
    record: RecordConfig = operational()
    mismatch: MismatchConfig = operational()
    cluster: ClusterConfig = operational()
    tracker: TrackerConfig = operational()
    harness: HarnessConfig = operational()
    runs_dir: str = operational()
    seed: int = MISSING

    def __post_init__(self):
        require(self.seed >= 0, "seed", self.seed, "must be 0 or more")
        require(self.runs_dir != "", "runs_dir", self.runs_dir, "name a folder, such as runs")
        self.check_numbers()
        self.check_method()
        self.check_ranks()

    def check_numbers(self) -> None:
        """Refuse what neither JSON nor torch can hold: NaN, infinity, and integers of more than 64 bits."""
        for key, value in flatten(asdict(self)).items():
            numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int | float)]
            held = all(abs(n) < (2**63 if isinstance(n, int) else math.inf) for n in numbers)
            require(held, key, value, "must be finite, and below 2^63 if it is an integer")

    def check_method(self) -> None:
        if self.method.divergence is not None:
            one_of("method.divergence", self.method.divergence, tuple(DIVERGENCES))
        needed, chosen = self.method.aggregation, self.train.aggregation
        remedy = f"as method={type(self.method).__name__.lower()} is set here it needs {needed}"
        require(needed in (None, chosen), "train.aggregation", chosen, remedy)

    def check_ranks(self) -> None:
        cluster, train, started = self.cluster, self.train, world_size()
        if started > 1:  # torchrun or SLURM has set the number of ranks
            require(cluster.ranks in (1, started), "cluster.ranks", cluster.ranks, f"{started} processes of the run were started")
            cluster.ranks = started
        rows = max(1, train.prompts_per_step * train.group_size // train.updates_per_step)
        remedy = f"more ranks than rows: an update has {rows} (train.prompts_per_step * group_size / updates_per_step)"
        require(cluster.ranks <= rows, "cluster.ranks", cluster.ranks, remedy)
        if self.rollout.engine == "vllm":
            sharing = self.rollout.vllm.tensor_parallel
            remedy = f"1 (an engine on each rank), or the run's number of ranks, {cluster.ranks} (cluster.ranks)"
            require(sharing in (1, cluster.ranks), "rollout.vllm.tensor_parallel", sharing, remedy)
