"""Commands in processes of their own that start at once: forked from one that has imported torch and Lightning.

To import them takes five seconds, again and again for each command. Everything else is as `python -m` has it: the
process's own directory, environment, standard streams, state of Hydra and torch, and its end. What is read from the
environment during import (OMP_NUM_THREADS, MPLBACKEND) is the first command's.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

IMPORTED = (
    "mindseye.commands.main", "mindseye.commands.visualize", "mindseye.commands.layers", "mindseye.commands.cache",
    "mindseye.demo.photographs", "mindseye.results.metrics", "mindseye.results.run_folder",
    "mindseye.results.visualization", "pyarrow.dataset", "sklearn.decomposition", "sklearn.manifold",
)  # fmt: skip
_parent: subprocess.Popen | None = None


class Begun:
    """A command at work: `pid`, and `wait()` for what `python` gives. Several may be at work at once."""

    def __init__(self, arguments, cwd, env, timeout):
        self.arguments = arguments
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [str(Path(self._folder.name) / name) for name in ("stdout", "stderr")]
        env = _without_verbosity(env)
        wish = {"arguments": arguments, "cwd": str(cwd), "env": env, "streams": self._streams, "timeout": timeout}
        self.pid = _ask(env, wish)

    def wait(self):
        """Until it has ended and its parent knows."""
        code = _ask(None, {"wait": self.pid})
        stdout, stderr = (Path(stream).read_text() if Path(stream).exists() else "" for stream in self._streams)
        self._folder.cleanup()
        return subprocess.CompletedProcess([sys.executable, *self.arguments], code, stdout, stderr)

    def kill(self):
        """SIGKILL, now; and wait."""
        os.kill(self.pid, 9)
        return self.wait()


def python(*arguments, cwd, env, timeout):
    """`python -m MODULE ...` or `python -c PROGRAM ...`: a subprocess.CompletedProcess with both streams as text.

    A process that runs past `timeout` seconds is ended, with returncode -14. Cold where there is no safe fork.
    """
    if sys.platform != "linux":
        env = _without_verbosity(env)
        return subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    return Begun(arguments, cwd, env, timeout).wait()


def _without_verbosity(env):
    """How much a command says is by its own words, not by what one in this process was told before, or whoever runs
    the suite: -q and -v stand in the environment."""
    return {name: value for name, value in env.items() if name != "MINDSEYE_VERBOSITY"}


def _ask(env, wish):
    parent = _running(env)
    parent.stdin.write(json.dumps(wish) + "\n")
    parent.stdin.flush()
    return int(parent.stdout.readline())


def _running(env):
    global _parent
    if _parent is None or _parent.poll() is not None:
        _parent = subprocess.Popen(
            [sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(_parent.communicate)  # the end of its input is its end
    return _parent


def _know():
    """What every command works out once: the table of log Z(b), Pillow's formats, what conf/ and its constructors
    take."""
    import PIL.Image
    from hydra.core.global_hydra import GlobalHydra

    from mindseye.commands.checking import check
    from mindseye.commands.composing import compose
    from mindseye.commands.constructors import check_constructors
    from mindseye.visualizer.distance import log_partition

    log_partition(torch.zeros(()))
    PIL.Image.init()
    check_constructors(check(compose([])).parts)
    GlobalHydra.instance().clear()


def _wishes():
    """In the parent: answers each wish with a child's pid, and who waits for one with its exit code. In the child:
    gives the wish."""
    for line in sys.stdin:
        wish = json.loads(line)
        sys.stdout.flush()
        answer = os.waitstatus_to_exitcode(os.waitpid(wish["wait"], 0)[1]) if "wait" in wish else os.fork()
        if answer == 0 and "wait" not in wish:
            return wish
        print(answer, flush=True)
    return None


def _become(wish):
    import runpy
    import signal

    signal.alarm(wish["timeout"])
    for descriptor, path in zip((0, 1, 2), (os.devnull, *wish["streams"]), strict=True):
        opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(wish["cwd"])
    os.environ.clear()
    os.environ.update(wish["env"])
    how, target, *arguments = wish["arguments"]
    sys.path[0] = wish["cwd"]
    sys.argv = [how, *arguments]
    if how == "-m":
        sys.modules.pop(target, None)  # it is to be run, as it stands in no `import` yet
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        exec(compile(target, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    import gc
    import importlib

    for name in IMPORTED:
        importlib.import_module(name)
    _know()
    gc.collect()
    gc.freeze()  # else each child goes through all of it again at its end, and copies it: more than a second
    if (wish := _wishes()) is not None:
        _become(wish)
