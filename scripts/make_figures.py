"""Makes the paper's figures of a run or of a sweep over layers, from its files alone; the same as `mindseye figures`.

    python scripts/make_figures.py RUN_OR_SWEEP_FOLDER [--out DIR] [--video mp4|webp]

Nothing is computed anew: a second or two of matplotlib for each figure, see docs/figures.md.
"""

import sys

from mindseye.commands.main import main

if __name__ == "__main__":
    main(["figures", *sys.argv[1:]])
