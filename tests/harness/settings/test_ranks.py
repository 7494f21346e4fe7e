"""What can be wrong with the number of ranks, and too little memory: said before a run starts."""

from types import SimpleNamespace

import pytest
import torch

from harness.distributed import ALONE, Ranks, local_device
from harness.planning import fit
from harness.settings.compose import compose_config


def test_more_ranks_than_rows():
    few = ["train.prompts_per_step=2", "train.group_size=4", "train.updates_per_step=4"]
    assert compose_config([*few, "cluster.ranks=2"]).cluster.ranks == 2
    with pytest.raises(ValueError, match="cluster.ranks=3: more ranks than rows: an update has 2"):
        compose_config([*few, "cluster.ranks=3"])


@pytest.mark.parametrize("number", [0, -1])
def test_no_ranks(number):
    with pytest.raises(ValueError, match="cluster.ranks"):
        compose_config([f"cluster.ranks={number}"])


def test_a_tensor_parallel_size_that_does_not_divide():
    assert compose_config(["rollout=vllm", "rollout.vllm.tensor_parallel=2", "cluster.ranks=2"]).cluster.ranks == 2
    for ranks in (1, 3, 4):
        with pytest.raises(ValueError, match=f"rollout.vllm.tensor_parallel=2: 1 .*{ranks} .cluster.ranks"):
            compose_config(["rollout=vllm", "rollout.vllm.tensor_parallel=2", f"cluster.ranks={ranks}"])


def test_torchrun_decides(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert compose_config([]).cluster.ranks == compose_config(["cluster.ranks=2"]).cluster.ranks == 2
    with pytest.raises(ValueError, match="cluster.ranks=3: 2 processes of the run were started"):
        compose_config(["cluster.ranks=3"])


def test_slurm_counts_its_tasks():
    assert compose_config(["cluster=slurm", "cluster.nodes=2", "cluster.tasks_per_node=4"]).cluster.ranks == 8
    with pytest.raises(ValueError, match="cluster.ranks=2: is nodes \\* tasks_per_node"):
        compose_config(["cluster=slurm", "cluster.nodes=2", "cluster.tasks_per_node=4", "cluster.ranks=2"])


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert local_device("auto") == local_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="torch sees no GPU"):
        local_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device("auto", 1) == local_device("cuda", 1) == torch.device("cuda", 1)
    assert local_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(ValueError, match="rank 2 of this machine has no GPU"):
        local_device("cuda", 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert local_device("auto", 3) == torch.device("cuda", 0), "a launcher that shows each rank its own GPU"


def test_too_little_memory_names_the_part(monkeypatch):
    config = compose_config([])
    fit.check_memory(config, ALONE)
    monkeypatch.setattr(fit, "host_memory", lambda: 1e6)
    with pytest.raises(ValueError, match="needed at least and 0.001 GB are free .*largest part is optimizer: .*offload"):
        fit.check_memory(config, ALONE)
    lone = compose_config(["rollout.precision=bfloat16"])
    with pytest.raises(ValueError, match="rollout weights"):
        fit.check_memory(lone, ALONE)


def test_each_rank_counts_for_itself_and_all_hear_of_it(monkeypatch):
    """Two ranks on a GPU each: offloaded moments count against the host, shared by the ranks of the machine."""
    config = compose_config(["cluster.ranks=2", "cluster.offload_optimizer=true"])
    ranks = SimpleNamespace(device=torch.device("cuda", 0), size=2, gather=lambda found: [None, found])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e9, 1e9))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    fit.check_memory(config, ranks)
    monkeypatch.setattr(fit, "host_memory", lambda: 1e6)
    with pytest.raises(ValueError, match="rank 1: the memory of this machine is too small.*optimizer"):
        fit.check_memory(config, ranks)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e6, 1e9))
    with pytest.raises(ValueError, match="rank 1: the memory of cuda:0 is too small"):
        fit.check_memory(config, ranks)


def test_alone_everything_is_what_it_was():
    value = object()
    assert ALONE.broadcast(value) is value and ALONE.gather(value) == ALONE.gather_to_first(value) == [value]
    assert ALONE.on_first(lambda: value) is value and ALONE.sum(2.5) == 2.5 and ALONE.any(True) and not ALONE.any(False)
    assert Ranks() == ALONE and ALONE.is_first and ALONE.mesh is None
