"""The command's first word picks what to do; without one it is `visualize`. Nothing heavy is imported here."""

import importlib
import sys
from collections.abc import Sequence

VERBS = {
    "visualize": "draw the facets that a layer sees in photographs (the default)",
    "layers": "list a network's layers: mindseye layers network=resnet50",
    "sweep": "show how a sweep is doing, or run what is left of it: mindseye sweep status|resume FOLDER",
    "report": "what one swept setting does, paired over all else: mindseye report FOLDER --by KEY",
    "gallery": "write a page that shows the runs of a folder: mindseye gallery FOLDER",
    "figures": "the paper's figures of a run or a sweep over layers, for print: mindseye figures FOLDER",
    "cache": "show what is kept between runs; mindseye cache clear deletes it",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `mindseye` command. Exits with 0, 1 after an error said in one line, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments.pop(0) if arguments and arguments[0] in VERBS else "visualize"
    if verb == "visualize" and arguments in (["--version"], ["-V"]):
        import mindseye

        print(f"mindseye {mindseye.__version__}")
        return
    command = getattr(importlib.import_module(f"mindseye.commands.{verb}"), verb)
    try:
        command(arguments)
    except (ValueError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("mindseye: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def fail(message: str) -> None:
    """One line on standard error and exit code 1."""
    print(f"mindseye: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
