"""The command's first word picks what to do; without one it is `visualize`. Nothing heavy is imported here."""

import importlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from mindseye.signals import CTRL_C, TO_BE_CONTINUED, Interrupted, Interruptible
from mindseye.words import nearest, on_one_line

HELP = """\
mindseye: see what a layer of a CNN responds to, one image for each kind of it

  mindseye                        draw the facets of a small demo, in a minute
  mindseye network=resnet50 layer=layer3.5.conv1 images.root=FOLDER k=50 C=10
                                  of your own photographs and network
  mindseye -m k=10,50 depth=early,late
                                  a sweep: every combination is a run, a cell
  mindseye layers network=NAME    a network's layers, to choose one from
  mindseye facets C=2..12         how many kinds of photographs there are
  mindseye sweep status FOLDER    how a sweep is doing; resume runs what is left
  mindseye gallery FOLDER         a page that shows the runs of a folder
  mindseye --from FOLDER k=10     the run of that folder again, but for k

and: report (what a setting does in a sweep), figures (for print, and films),
dashboard (in wandb), cache (what runs share). Each says more with --help.

settings, as KEY=VALUE:
  network  layer or depth  images.root     what looks at what
  k  C  steps  seed                        channels, facets, steps, chance
  objective  facets  canvas  transformations  filters  schedule  optimizer
                                           groups of settings: how it is drawn
  transfer  logger  callbacks              judges, trackers, who looks on
  hydra/launcher                           where it runs
  hydra.run.dir=FOLDER                     where the result goes
  experiment=smoke                         tries everything, in seconds
  --cfg job                                prints every setting with its value

  -q, --quiet      say only the run folder
  -v, --verbose    say what is done, on standard error
  --version
  --hydra-help     Hydra's own options: --config-dir, --shell-completion, …

exit codes: 0 done, 1 failed, 2 no such option, 75 to be continued, 130 Ctrl-C
"""
VERBS = {
    "visualize": "draw the facets that a layer sees in photographs (the default)",
    "facets": "how many facets there are: mindseye facets C=2..12 images.root=FOLDER",
    "layers": "list a network's layers: mindseye layers network=resnet50",
    "sweep": "show how a sweep is doing, or run what is left of it: mindseye sweep status|resume FOLDER",
    "report": "what one swept setting does, paired over all else: mindseye report FOLDER --by KEY",
    "gallery": "write a page that shows the runs of a folder: mindseye gallery FOLDER",
    "figures": "the paper's figures of a run, a sweep's pictures as grids, for print: mindseye figures FOLDER",
    "dashboard": "make a workspace for runs in wandb: mindseye dashboard ENTITY/PROJECT --sweep FOLDER",
    "cache": "show what is kept between runs; mindseye cache clear deletes it",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `mindseye` command. Its exit codes are in docs/clusters.md."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not sys.stderr.isatty():  # what downloads weights draws bars into files, too
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.raiseExceptions = False  # a full disk is said once, not in a traceback for each line of a log
    verb = arguments.pop(0) if arguments and arguments[0] in VERBS else "visualize"
    works = verb == "visualize" or (verb == "sweep" and arguments[:1] == ["resume"])
    with _exit_codes(), Interruptible() if works else nullcontext():
        if verb == "visualize" and arguments in (["--version"], ["-V"]):
            import mindseye

            print(f"mindseye {mindseye.__version__}")
            return
        if verb in ("visualize", "sweep"):
            from mindseye.commands.verbosity import take_verbosity

            arguments = take_verbosity(arguments)
        if verb == "visualize" and ({"-h", "--help"} & {*arguments} or arguments == ["help"]):
            print(HELP, end="")
            return
        if verb == "visualize" and arguments and re.fullmatch(r"[A-Za-z]\w*", arguments[0]):
            raise ValueError(f"{arguments[0]}: {no_such_verb(arguments[0])}")
        command = getattr(importlib.import_module(f"mindseye.commands.{verb}"), verb)
        command(arguments)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """What ends the command is one line on standard error and an exit code."""
    try:
        yield
    except (ValueError, OSError) as error:
        fail(str(error))
    except Interrupted as stop:  # before a run began, or after it was done
        print(f"mindseye: {stop}; the same command goes on", file=sys.stderr)
        raise SystemExit(TO_BE_CONTINUED) from None
    except KeyboardInterrupt:
        print("mindseye: interrupted", file=sys.stderr)
        raise SystemExit(CTRL_C) from None


def no_such_verb(word: str) -> str:
    """What to write instead of a first word that is neither a command nor a setting.

    >>> no_such_verb("galery")
    'there is no such command; did you mean gallery? mindseye --help lists them; a setting is KEY=VALUE'
    """
    near = nearest(word, VERBS, most=1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    return f"there is no such command{meant} mindseye --help lists them; a setting is KEY=VALUE"


def fail(message: str) -> None:
    """One line on standard error and exit code 1."""
    print(f"mindseye: {on_one_line(message)}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
