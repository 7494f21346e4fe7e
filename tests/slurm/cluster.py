"""A real SLURM of two nodes on this machine's loopback, for tests and benchmarks.

Everything it writes lies in one folder, everything it starts is ended by its own process id. It needs root and Debian's
slurm-wlm and munge; with accounting also slurmdbd and mariadb-server.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db")
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"

SLURM_CONF = """
ClusterName=practice
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,bf_interval=1
ReturnToService=2
JobRequeue=1
SlurmdTimeout=5
SlurmctldTimeout=5
InactiveLimit=0
KillWait=5
MinJobAge=300
MaxArraySize=1001
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1_port} CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2_port} CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE PriorityTier=9 State=UP
{accounting}
"""

ACCOUNTING_CONF = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={folder}/munge.socket
JobAcctGatherType=jobacct_gather/linux
"""

SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing_programs(accounting: bool = False) -> list[str]:
    names = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    return [name for name in names if shutil.which(name, path=SEARCH_PATH) is None]


class Cluster:
    """Use as a context manager. `env` lets a client program find it; nodes can be killed and started again."""

    def __init__(self, folder: Path, accounting: bool = False):
        self.folder, self.accounting = folder, accounting
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": SEARCH_PATH}
        self.daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Cluster:
        try:
            self.configure()
            self.start_munge()
            if self.accounting:
                self.start_accounting()
            self.start("slurmctld", ["slurmctld", "-D", "-i"])
            wait_for(lambda: self.answers("scontrol", "ping") and "UP" in self.call("scontrol", "ping"), "slurmctld")
            for node in NODES:
                self.start_node(node)
            wait_for(lambda: self.node_states() == {"idle"}, "two idle nodes", 30)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def configure(self) -> None:
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        names = ("ctld_port", "n1_port", "n2_port", "dbd_port", "sql_port")
        self.values = dict(zip(names, free_ports(len(names)), strict=True))
        self.values |= {"folder": str(self.folder), "host": socket.gethostname()}
        accounting = ACCOUNTING_CONF.format(**self.values) if self.accounting else ""
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**self.values, accounting=accounting))
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {name: str(self.folder / f"munge.{name}") for name in ("socket", "pid", "log", "seed")}
        options = [f"--key-file={key}", f"--socket={files['socket']}", f"--pid-file={files['pid']}"]
        options += [f"--log-file={files['log']}", f"--seed-file={files['seed']}", "--num-threads=2"]
        self.start("munged", ["munged", "--foreground", "--force", *options])
        wait_for(lambda: Path(files["socket"]).exists(), "munged")

    def start_accounting(self) -> None:
        data, sql = self.folder / "sql", str(self.folder / "sql.socket")
        self.check(
            "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=normal"
        )
        options = [f"--datadir={data}", f"--socket={sql}", f"--port={self.values['sql_port']}", "--bind-address=127.0.0.1"]
        options += [f"--pid-file={self.folder}/sql.pid", "--user=root", "--innodb-lock-wait-timeout=900"]
        self.start("mariadbd", ["mariadbd", "--no-defaults", *options])
        ask = ("mariadb", "--no-defaults", f"--socket={sql}", "-e")
        wait_for(lambda: self.answers(*ask, "select 1"), "mariadbd", 60)
        self.check(
            *ask, "create user 'slurm'@'%' identified by 'slurm'; grant all on *.* to 'slurm'@'%'; create database slurm_acct;"
        )
        self.check(*ask, "delete from mysql.user where user = ''; flush privileges;")
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(SLURMDBD_CONF.format(**self.values))
        conf.chmod(0o600)
        self.start("slurmdbd", ["slurmdbd", "-D"])
        wait_for(lambda: self.answers("sacctmgr", "-n", "list", "cluster"), "slurmdbd", 60)
        if "practice" not in self.call("sacctmgr", "-n", "list", "cluster"):
            self.check("sacctmgr", "-i", "add", "cluster", "practice")

    def start_node(self, node: str) -> None:
        self.start(node, ["slurmd", "-D", "-N", node])

    def kill_node(self, node: str) -> None:
        """As a power cut does: the daemon and every process of the jobs on it, at once."""
        daemon = self.daemons.pop(node)
        for pid in [daemon.pid, *self.processes_on(node)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()

    def processes_on(self, node: str) -> list[int]:
        """A slurmstepd belongs to no daemon; what it started has the node's name in its environment."""
        families = [[pid, *descendants(pid)] for pid in self.processes() if name_of(pid) == "slurmstepd"]
        on_node = lambda pid: environment_of(pid).get("SLURMD_NODENAME") == node
        return [pid for family in families if any(map(on_node, family)) for pid in family]

    def start(self, name: str, words: list[str]) -> None:
        with open(self.folder / f"{name}.out", "ab") as output:
            program = shutil.which(words[0], path=SEARCH_PATH)
            process = subprocess.Popen(
                [program, *words[1:]], env=self.env, stdin=-3, stdout=output, stderr=output, start_new_session=True
            )
        self.daemons[name] = process

    def call(self, *words: str) -> str:
        """Standard output, whatever the exit status."""
        return subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60).stdout

    def check(self, *words: str) -> str:
        result = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
        return result.stdout

    def answers(self, *words: str) -> bool:
        """Whether the command succeeds within a minute: scancel waits longer for a node that is lost."""
        with suppress(subprocess.TimeoutExpired):
            return subprocess.run(words, env=self.env, capture_output=True, timeout=60).returncode == 0
        return False

    def node_states(self) -> set[str]:
        return set(self.call("sinfo", "-h", "-N", "-o", "%T").split())

    def jobs(self) -> dict[str, dict[str, str]]:
        """What scontrol says of each job, by id ("12_3" for an array's)."""
        found = {}
        for line in self.call("scontrol", "show", "job", "-o").splitlines():
            fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
            for task in tasks_of(fields.get("ArrayTaskId", "")):
                found[f"{fields['ArrayJobId']}_{task}"] = fields
            if "JobId" in fields and "ArrayTaskId" not in fields:
                found[fields["JobId"]] = fields
        return found

    def batch_script(self, job_id: str) -> int | None:
        """The shell that runs the job's script; None if it is not running."""
        script = f"job{int(self.jobs().get(job_id, {}).get('JobId', 0)):05d}/slurm_script"
        return next((pid for pid in self.processes() if script in command_of(pid)), None)

    def task(self, job_id: str) -> int | None:
        """The python that srun started for the job."""
        raw = self.jobs().get(job_id, {}).get("JobId")
        mine = [pid for pid in self.processes() if environment_of(pid).get("SLURM_JOB_ID") == raw]
        return next((pid for pid in mine if " -m submitit" in command_of(pid) and name_of(pid) != "srun"), None)

    def processes(self) -> list[int]:
        """All processes that this cluster's SLURM_CONF was given to."""
        mine = str(self.folder / "slurm.conf")
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if pid != os.getpid() and environment_of(pid).get("SLURM_CONF") == mine]

    def stop(self) -> None:
        if "slurmctld" in self.daemons:
            with suppress(subprocess.TimeoutExpired):
                self.call("scancel", "--user=root")
        for process in reversed(self.daemons.values()):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.daemons.values():
            process.wait()
        self.daemons.clear()


def tasks_of(text: str) -> list[int]:
    """Of an array's record: "3", or "4,6-8%2" for those that wait."""
    ranges = [part.split("-") for part in text.partition("%")[0].split(",") if part]
    return [task for ends in ranges for task in range(int(ends[0]), int(ends[-1]) + 1)]


def environment_of(pid: int) -> dict[str, str]:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(word.split("=", 1) for word in words if "=" in word)
    return {}


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return ""


def name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def descendants(pid: int) -> list[int]:
    with suppress(OSError):
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return children + [below for child in children for below in descendants(child)]
    return []


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.05)
