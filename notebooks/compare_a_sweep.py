# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Compare a sweep
#
# Which k? Which objective? Nobody knows beforehand, so draw with all of them and compare. A *sweep* runs every combination
# of the values that you list; each combination is a *cell*, a run with a folder of its own. This notebook runs a small one
# and reads it: tables, curves, pictures side by side, and what one setting does all else being equal.
#
# It takes about a minute on two CPU cores, so the pictures are small and drawn with few steps: enough to learn how to read
# a sweep, not to decide by. It writes into a temporary folder only. To open it in Jupyter:
# `pip install '.[notebooks]' jupyterlab`, then `jupytext --to ipynb compare_a_sweep.py`.

# %%
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow.parquet as pq
from IPython.display import Image, Markdown, display

import mindseye as me

work = Path(tempfile.mkdtemp(prefix="mindseye-"))


def terminal(command):
    """Run `mindseye …` with the Python of this notebook, and show what it says as plain text."""
    plain = {**os.environ, "FORCE_COLOR": ""}
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, cwd=work, env=plain, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    done.check_returncode()


# %% [markdown]
# ## 1. Run it
#
# `-m`, and values with commas between them: k of 5, 20 and 80, each with the *calibrated* objective (the default) and the
# *published* one, which follows the paper to the letter; `facets=calibrated` gives both the same facets, where the published
# one would bring its own. Six cells. The photographs are looked at once: the cache keeps what
# the network says of them for all cells.
#
# `transfer=demo` names a second network that judges the pictures. For this small example it is the demo's network again at
# an earlier layer, since there is no other one without a download; **for your own sweeps take another network**, say
# `transfer=squeezenet1_1 transfer.squeezenet1_1.layer=features.12`.

# %%
terminal("""mindseye -q -m k=5,20,80 objective=calibrated,published facets=calibrated C=3 steps=20 length=calibrated
    images.count=100 images.size=64 transfer=demo transfer.demo.layer=layer3.0 cache.folder=cache
    hydra.sweep.dir=my_sweep""")

# %%
terminal("mindseye sweep status my_sweep")

# %% [markdown]
# (`-q` says nothing but the folder; without it every cell shows its steps and its table.) The same command again would run nothing, since all cells are done. With more values it would run the new ones only.
#
# ## 2. The table
#
# `summary.csv` (for spreadsheets) and `summary.parquet` (for programs) have a row for each cell and facet. The settings
# that were swept are the columns `override.…`. With pandas it is `pandas.read_parquet(...)`; no more than a list of
# dictionaries is needed here.

# %%
rows = pq.read_table(work / "my_sweep" / "summary.parquet").to_pylist()
print(len(rows), "rows;", "columns:", ", ".join(rows[0]))

# %% [markdown]
# A pivot: the mean over the facets, k down the side, the objective across the top. `retrieval` and `transfer.cosine` are best
# large; `naturalness.tv` is best near 1 or below.

# %%
ks = sorted({row["override.k"] for row in rows})
objectives = sorted({row["override.objective"] for row in rows})


def mean(measure, k, objective):
    found = [row[measure] for row in rows if (row["override.k"], row["override.objective"]) == (k, objective)]
    return sum(found) / len(found)


def pivot(measure):
    """A table of markdown."""
    lines = [f"| {measure} | " + " | ".join(objectives) + " |", "|---" * (1 + len(objectives)) + "|"]
    for k in ks:
        lines.append(f"| k = {k} | " + " | ".join(f"{mean(measure, k, one):.2f}" for one in objectives) + " |")
    return "\n".join(lines)


for measure in ("transfer.cosine", "fidelity.cosine", "fidelity.magnitude", "naturalness.tv"):
    display(Markdown(pivot(measure)))

# %% [markdown]
# ## 3. Beside the baselines
#
# A number says little by itself. Every run keeps the same figures for three pictures that nobody drew: the *initial* blend,
# the *nearest* photograph, *noise*. `read_run` opens the folder of a cell.

# %%
cells = {(row["override.k"], row["override.objective"]): work / "my_sweep" / row["cell"] for row in rows}
runs = {cell: me.read_run(folder) for cell, folder in cells.items()}
baselines = runs[20, "calibrated"].metrics["baselines"]

figure, axes = plt.subplots(1, 3, figsize=(12, 3))
for ax, (group, name) in zip(
    axes, [("transfer", "cosine"), ("fidelity", "cosine"), ("naturalness", "tv")], strict=True
):
    for objective, marker in zip(objectives, "os", strict=True):
        ax.plot(range(len(ks)), [mean(f"{group}.{name}", k, objective) for k in ks], f"-{marker}", label=objective)
    for baseline, style in zip(("initial", "nearest"), (":", "--"), strict=True):
        ax.axhline(baselines[baseline][group][name], color="grey", linestyle=style, label=baseline)
    ax.set_xticks(range(len(ks)), labels=ks)
    ax.set_xlabel("k")
    ax.set_title(f"{group}.{name}")
axes[0].legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# (The grey lines are those of k = 20; the fidelity of a baseline depends on k as well.)
#
# Between single runs of three facets differences of a few hundredths are chance: sweep over `seed=0,1,2,3` before you
# believe one.
#
# ## 4. Curves
#
# `history` has a row for each step and facet. `mdist` is the distance of the layer's answer from the target, each objective's
# in its own unit, so each has its own axis. The calibrated one falls; where it still does at the end, more steps will help.
# The published one *rises*: as the paper has it the activation may grow without bound, and it does (see `fidelity.magnitude`
# in the table above; `docs/method.md` says why).

# %%
figure, axes = plt.subplots(1, len(objectives), figsize=(10, 3))
for ax, objective in zip(axes, objectives, strict=True):
    for k in ks:
        history = runs[k, objective].history
        steps = sorted(set(history["step"]))
        over_facets = {step: [] for step in steps}
        for step, value in zip(history["step"], history["mdist"], strict=True):
            over_facets[step].append(value)
        means = [sum(over_facets[step]) / len(over_facets[step]) for step in steps]
        ax.plot(steps, means, label=f"k = {k}")
    ax.set_title(f"mdist, {objective}")
    ax.set_xlabel("step")
    ax.set_ylim(bottom=0)
axes[0].legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 5. The pictures
#
# Numbers choose; eyes decide. Cells of one network, layer, C and seed have the same facets in the same order, so a column
# below is one facet throughout. All pictures have the same scale.

# %%
shown = {f"k = {k}\n{objective}": runs[k, objective].images for k in ks for objective in objectives}
figure, axes = plt.subplots(3, len(shown), figsize=(1.8 * len(shown), 5.8))
for column, (title, images) in zip(axes.T, shown.items(), strict=True):
    column[0].set_title(title, fontsize=9)
    for c, ax in enumerate(column):
        ax.imshow(images[c].permute(1, 2, 0), vmin=0, vmax=1)
        ax.set_xticks([])
        ax.set_yticks([])
for c, ax in enumerate(axes[:, 0]):
    ax.set_ylabel(f"facet {c}")
figure.tight_layout()

# %% [markdown]
# ## 6. The gallery
#
# The same with sliders, curves, iterations and the photographs behind each facet is already there: open `gallery.html` in a
# browser. It needs no server.

# %%
print((work / "my_sweep" / "gallery.html").as_uri())

# %% [markdown]
# ## 7. What one setting does
#
# `mindseye report` holds every value of one setting against a reference, pair by pair: the same facet, the same k, the same
# everything else. Here, what the published objective changes. Bold (or `clear` in `report.json`) is a difference whose 95 %
# interval leaves out 0. It writes the table as Markdown, LaTeX, CSV and JSON too.

# %%
terminal("mindseye report my_sweep --by objective --reference calibrated")

# %%
Markdown((work / "my_sweep" / "report.md").read_text())

# %% [markdown]
# ## 8. Figures for print
#
# `mindseye figures` makes the paper's figures of a run (or of a sweep over layers), as PDF and PNG at print size.

# %%
best = max(cells, key=lambda cell: mean("transfer.cosine", *cell))
print("best by transfer.cosine: k =", best[0], best[1])
terminal(f"mindseye figures {cells[best].relative_to(work).as_posix()}")

# %%
for file in sorted((cells[best] / "figures").glob("*.png")):
    print(file.name)
    display(Image(str(file), width=700))

# %% [markdown]
# **Next:** more machines or GPUs, `docs/clusters.md`; every measure and how it misleads, `docs/metrics.md`.
