"""A machine of its own inside this one, and the command run in it."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIMIT_S = 150  # of any one command; a scheduler that hangs must not hang the suite


class Node:
    """A machine of its own, as far as network and processes go: made by `unshare`, commands enter it by `nsenter`."""

    def __init__(self, script: list[str], environment: Mapping[str, str]) -> None:
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment}
        isolated = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self._keeper = subprocess.Popen(
            [*isolated, "bash", *script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment, start_new_session=True,
        )  # fmt: skip
        ready, _, _ = select.select([self._keeper.stdout], [], [], 60)
        if not ready or self._keeper.stdout.readline() != "ready\n":
            self.stop()
            raise RuntimeError(f"{script[0]} did not become ready")
        keeper = self._keeper.pid
        self._first = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0]

    def start(self, *command: str, cwd: Path, **environment: str) -> subprocess.Popen:
        """A command inside, in the folder `cwd`, its output captured; `finish` waits for it."""
        entered = ["nsenter", "--target", self._first, "--net", "--pid", "--mount", "env", "-C", str(cwd)]
        return subprocess.Popen(
            [*entered, *command], env={**self.environment, **environment}, start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, started: subprocess.Popen, timeout: float = LIMIT_S) -> subprocess.CompletedProcess:
        """What came of a started command; it and all that it started are killed after `timeout` seconds."""
        try:
            out, err = started.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            out, err = started.communicate()
            raise AssertionError(f"{started.args[9:]} took more than {timeout} s:\n{out}\n{err}") from None
        return subprocess.CompletedProcess(started.args, started.returncode, out, err)

    def run(self, *command: str, cwd: Path = HERE, timeout: float = LIMIT_S, **environment: str):
        """Start and finish in one."""
        return self.finish(self.start(*command, cwd=cwd, **environment), timeout)

    def mindseye(self, *arguments: str, cwd: Path, timeout: float = LIMIT_S, **environment: str):
        """The real command inside."""
        return self.run(*mindseye_command(*arguments), cwd=cwd, timeout=timeout, **environment)

    def stop(self) -> None:
        """Shut down; what does not go by itself is killed with its namespace."""
        try:
            self._keeper.communicate(timeout=30)  # closes its input
        except subprocess.TimeoutExpired:
            os.killpg(self._keeper.pid, signal.SIGKILL)
            self._keeper.communicate()


def mindseye_command(*arguments: str) -> list[str]:
    """The command line of `mindseye ARGUMENTS` in this interpreter."""
    return [sys.executable, "-m", "mindseye.commands.main", *arguments]


def eventually(what: Callable[[], object], timeout: float = 60, every: float = 0.1) -> object:
    """The first true answer of `what`, asked again and again."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if answer := what():
            return answer
        time.sleep(every)
    raise AssertionError(f"{what} stayed false for {timeout} s")


def need(*programs: str) -> None:
    """Skip, and say why, where a test node cannot be made."""
    missing = [program for program in ("unshare", "nsenter", "ip", *programs) if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge iproute2)")
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"no namespaces of our own: {tried.stderr.strip()}")
