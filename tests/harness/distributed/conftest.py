"""Real ranks: processes of their own that speak over gloo on the loopback interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Ranks:
    """Starts scripts of this folder on several ranks, each told its place as torchrun would."""

    def __init__(self, folder: Path):
        self.folder, self.num_calls = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.server.stdout.readline() == "ready\n"

    def outcome(self, size: int, script: str, *arguments: object, seconds: float = 300) -> list[tuple[int, str]]:
        """(exit status, output) of each rank; killed after `seconds`."""
        self.num_calls += 1
        outputs = [self.folder / f"{self.num_calls}.{rank}.txt" for rank in range(size)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        common |= {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
        order = {
            "script": script,
            "arguments": list(map(str, arguments)),
            "environments": [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)],
            "outputs": list(map(str, outputs)),
            "seconds": seconds,
        }
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        statuses = json.loads(self.server.stdout.readline())
        return [(status, output.read_text()) for status, output in zip(statuses, outputs, strict=True)]

    def run(self, size: int, script: str, *arguments: object) -> None:
        """All of them must succeed."""
        for status, output in self.outcome(size, script, *arguments):
            assert status == 0, output


@pytest.fixture(scope="session")
def ranks(tmp_path_factory) -> Iterator[Ranks]:
    started = Ranks(tmp_path_factory.mktemp("ranks"))
    yield started
    started.server.stdin.close()
    started.server.wait(60)
