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
# # Quickstart: what does a layer see?
#
# You have a trained network and a folder of photographs. mindseye finds the *kinds* of photographs that a layer of the
# network tells apart, called **facets**, and draws one picture for each that shows what the layer responds to in it.
#
# This notebook does that on a small example which needs no download: drawn photographs of padlocks, and a little network
# that comes with the package. It takes about a minute on two CPU cores, and it writes into a temporary folder only.
#
# *To open it in Jupyter:* `pip install '.[notebooks]' jupyterlab`, then `jupytext --to ipynb quickstart.py`
# (or, in JupyterLab, right-click the file, *Open With*, *Notebook*).

# %%
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import mindseye as me
from mindseye.demo.photographs import write_photographs

work = Path(tempfile.mkdtemp(prefix="mindseye-"))

# %% [markdown]
# ## 1. Photographs
#
# Any folder of images will do. Here 120 are drawn: padlocks in four ways, mixed, on all sorts of backgrounds. Nothing
# tells mindseye which is which.

# %%
write_photographs(work / "photographs", "padlock", count=120, seed=0)
photographs = me.load_photographs(work / "photographs", size=96)

figure, axes = plt.subplots(1, 8, figsize=(12, 1.7))
for i, ax in enumerate(axes):
    ax.imshow(photographs.read(i).permute(1, 2, 0))
    ax.set_title(photographs.paths[i], fontsize=6)
    ax.axis("off")

# %% [markdown]
# ## 2. A network and one of its layers
#
# `load_network` takes the name of any torchvision network (`"resnet50"`), `"timm/…"`, or a module of your own
# (the notebook *your_own_network*). It comes back frozen. Early layers respond to edges and textures, late ones to
# parts and whole objects: the receptive field says how many pixels one position of the layer can see.

# %%
network = me.load_network("demo")
me.layer_table(network)

# %%
# `late` is one of the names that this network's configuration gives; of your own network take a name from the table.
layer = network.layers["late"]

# %% [markdown]
# ## 3. Find the facets
#
# What the layer answers to each photograph is a list of numbers, one for each channel. Photographs with like answers are
# put into one group. Two numbers are yours to choose:
#
# - `facets`, the number of groups (**C** in the paper). Start with 4 to 10.
# - `k`, the number of channels that count for a facet: those that answer it most strongly. A third of the layer's
#   channels is a good start; fewer show single features, more show whole objects.
#
# *Initial image* is the weighted mean of a facet's photographs. It is where drawing starts, not yet a result.

# %%
targets = me.discover_facets(network, photographs, layer, me.Facets(C=4, k=50))
targets

# %% [markdown]
# The four ways of padlocks have been found: in a row, one closed, a keyhole close by, one open. Where photographs of one
# row do not belong together, take more facets, or another layer.
#
# ## 4. Draw
#
# Starting from the initial image, the picture of each facet is changed step by step until the layer answers it as it
# answers the facet's photographs, only more strongly. 80 steps are the default; 50 are enough to see what comes.

# %%
result = me.visualize(network, targets, me.Method(steps=50))
result

# %% [markdown]
# **How to look at it.** Compare the last picture of each row with the initial image beside it. What has become clearer is
# what these 50 channels respond to. What has faded, or stayed a blur, does not matter to them.
#
# ## 5. How far to trust it
#
# No number means much alone, so each is given for three other pictures as well: the *initial* blend, the *nearest*
# photograph, and *noise*.
#
# | | |
# |---|---|
# | `fidelity.cosine` | does the layer answer the picture as it answers the photographs? 1 is best. Should be above *initial*, may be above *nearest* |
# | `retrieval` | 1: every picture is recognised as its own facet. Below 1 facets are confused: take fewer |
# | `naturalness.tv` | roughness beside photographs'. Near 1 or below is smooth; far above 1 the picture is mostly grain, and not to be trusted |
# | `selectivity` | how much of the whole layer's answer comes from the k channels |

# %%
names = ["mean of the facets", *result.metrics["baselines"]]
rows = [result.metrics["summary"], *result.metrics["baselines"].values()]

figure, axes = plt.subplots(1, 3, figsize=(12, 2.4), sharey=True)
for ax, (title, value) in zip(
    axes,
    {
        "fidelity.cosine (1 is best)": [row["fidelity"]["cosine"] for row in rows],
        "retrieval (1 is best)": [row["retrieval"] for row in rows],
        "naturalness.tv (near 1, or below)": [row["naturalness"]["tv"] for row in rows],
    }.items(),
    strict=True,
):
    ax.barh(names, value, color=["tab:blue", "silver", "silver", "silver"])
    ax.bar_label(ax.containers[0], fmt="%.2f", padding=3)
    ax.set_title(title, fontsize=10)
    ax.set_xlim(0, 1.2 * max(value))
    ax.spines[["top", "right"]].set_visible(False)
axes[0].invert_yaxis()

# %% [markdown]
# How the picture came about: `DM` is how well the layer's answer matches (it is maximised), `mdist` the distance to the
# exaggerated target (it falls).

# %%
history = result.fit.history
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6))
for ax, term in zip(axes, ["dm", "mdist"], strict=True):
    for c in range(targets.C):
        own = [i for i, facet in enumerate(history["facet"]) if facet == c]
        ax.plot([history["step"][i] for i in own], [history[term][i] for i in own], label=f"facet {c}")
    ax.set_xlabel("step")
    ax.set_title(term)
axes[0].legend(fontsize=8)

# %% [markdown]
# ## 6. Keep it
#
# `save` writes a folder that anybody can open: `facets.png` is the sheet above, `metrics.json` has every number.
# `read_run` brings it back.

# %%
folder = result.save(work / "my_run")
again = me.read_run(folder)
print(sorted(path.name for path in folder.iterdir()))
print(tuple(again.images.shape), again.metrics["summary"]["fidelity"])

# %% [markdown]
# ## 7. The same from the command line
#
# In a terminal, without any Python. `cache=off` keeps nothing between runs, `hydra.run.dir` names the folder of the
# result. (In a terminal you write just what stands in quotes.)


# %%
def terminal(command):
    """Run `mindseye …` with the Python of this notebook, and show what it says as plain text."""
    plain = {**os.environ, "FORCE_COLOR": ""}
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, cwd=work, env=plain, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    done.check_returncode()


terminal("mindseye images.root=photographs network=demo depth=late k=50 C=4 steps=5 cache=off hydra.run.dir=second_run")

# %%
said = json.loads((work / "second_run" / "metrics.json").read_text())
said["summary"]["fidelity"]

# %% [markdown]
# The folder has `gallery.html` as well: open it in a browser to see the pictures grow, the photographs behind each, and all
# curves.
#
# **Next:** *your_own_network*, for a network that you trained yourself, and *compare_a_sweep*, for many settings at once.
