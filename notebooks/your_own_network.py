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
# # Your own network
#
# You have trained a network on images of your own, perhaps of one channel (X-ray, microscopy) or of six (satellites), in
# raw counts, with a normalisation that nobody else has. This notebook goes all the way: such a network, a look into it,
# and how to tell a picture that can be trusted from one that only looks like it.
#
# Everything is made here: images of four known kinds, a small network trained on them in a few seconds. It takes a minute
# or two on two CPU cores and writes into a temporary folder only. To open it in Jupyter:
# `pip install '.[notebooks]' jupyterlab`, then `jupytext --to ipynb your_own_network.py`.

# %%
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn import functional as F

import mindseye as me

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # which of training says a screenful
warnings.filterwarnings("ignore", module="lightning_fabric|pytorch_lightning")

work = Path(tempfile.mkdtemp(prefix="mindseye-"))
rng = np.random.default_rng(0)
SIDE = 64

# %% [markdown]
# ## 1. Images in raw counts
#
# A 12-bit camera on a microscope, 0 to 4095 counts, one channel: cells with a nucleus, fibres, rings, crystals.

# %%
y, x = np.mgrid[:SIDE, :SIDE].astype(float)


def cells():
    """Three to five discs with a dark nucleus."""
    picture = np.zeros((SIDE, SIDE))
    for _ in range(rng.integers(3, 6)):
        radius = rng.uniform(8, 12)
        distance = np.hypot(y - rng.uniform(8, 56), x - rng.uniform(8, 56))
        disc = np.clip(radius - distance, 0, 1) * (0.8 - 0.6 * np.clip(0.45 * radius - distance, 0, 1))
        picture = np.maximum(picture, disc)
    return picture


def fibres():
    """Wavy lines side by side."""
    wave = rng.uniform(1, 3) * np.sin(y / rng.uniform(8, 14) + rng.uniform(0, 6))
    return np.clip(np.cos(2 * np.pi * (x + rng.uniform(-0.4, 0.4) * y + wave) / rng.uniform(9, 13)), 0, 1)


def rings():
    """Bright circles about one centre."""
    distance = np.hypot(y - rng.uniform(24, 40), x - rng.uniform(24, 40))
    return np.clip(np.cos(2 * np.pi * distance / rng.uniform(9, 12)), 0, 1) * (distance < rng.uniform(20, 28))


def crystals():
    """Two to four squares, each half in shadow."""
    picture = np.zeros((SIDE, SIDE))
    for _ in range(rng.integers(2, 5)):
        turn, down, right = rng.uniform(0, np.pi), y - rng.uniform(10, 54), x - rng.uniform(10, 54)
        u = right * np.cos(turn) + down * np.sin(turn)
        v = down * np.cos(turn) - right * np.sin(turn)
        inside = np.clip(rng.uniform(7, 12) - np.maximum(abs(u), abs(v)), 0, 1)
        picture = np.maximum(picture, inside * (0.5 + 0.5 * (u > v)))
    return picture


KINDS = [cells, fibres, rings, crystals]


def exposure(kind):
    """Raw counts [64, 64] of one image: uneven light, noise, and what is to be seen."""
    light = 1 + 0.25 * (rng.uniform(-1, 1) * (x / SIDE - 0.5) + rng.uniform(-1, 1) * (y / SIDE - 0.5))
    counts = (700 + rng.uniform(700, 1100) * kind()) * light + rng.normal(0, 60, (SIDE, SIDE))
    return counts.clip(0, 4095).astype(np.uint16)


labels = torch.arange(480) % len(KINDS)
counts = np.stack([exposure(KINDS[label]) for label in labels])

figure, axes = plt.subplots(1, 8, figsize=(12, 1.8))
for image, label, ax in zip(counts, labels, axes, strict=False):
    ax.imshow(image, cmap="gray", vmin=500, vmax=2200)
    ax.set_title(KINDS[label].__name__, fontsize=8)
    ax.axis("off")
print(f"counts from {counts.min()} to {counts.max()}, mean {counts.mean():.0f}")

# %% [markdown]
# ## 2. Your network, trained by you
#
# A plain PyTorch module in a file of your project, `my_net.py`. In training its input is `(counts - 1024) / 300`: such
# numbers stand somewhere in everybody's training script, and they are all that mindseye has to know about it.

# %%
(work / "my_net.py").write_text('''from torch import nn


class Net(nn.Module):
    """Three blocks of convolution, and the mean over the map into a linear layer."""

    def __init__(self, channels=1, classes=4, kernel=5):
        super().__init__()
        self.block1 = self.block(channels, 16, kernel)
        self.block2 = self.block(16, 32, kernel)
        self.block3 = self.block(32, 64, kernel)
        self.head = nn.Linear(64, classes)

    def block(self, inputs, outputs, kernel):
        convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, images):
        return self.head(self.block3(self.block2(self.block1(images))).mean(dim=(2, 3)))
''')
sys.path.insert(0, str(work))
from my_net import Net  # noqa: E402


# %%
def train(net, images, labels, epochs=8):
    """Adam and cross-entropy; a tenth is left out, and its accuracy printed."""
    optimizer, apart = torch.optim.Adam(net.parameters(), 3e-3), len(images) // 10
    for _ in range(epochs):
        for batch in (torch.randperm(len(images) - apart) + apart).split(32):
            loss = F.cross_entropy(net.train()(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    right = net.eval()(images[:apart]).argmax(dim=1) == labels[:apart]
    print(f"accuracy {right.float().mean():.2f}")
    return net


torch.manual_seed(0)
inputs = (torch.tensor(counts, dtype=torch.float32)[:, None] - 1024) / 300
net = train(Net(), inputs, labels)

# %% [markdown]
# ## 3. Tell mindseye how your images become numbers
#
# Inside mindseye every image is in 0..1. So there are two questions:
#
# 1. **Which counts become 0 and 1?** `black` and `white`, as in an image viewer. Choose them about where your images have
#    their values: 500 and 2200 here. (Without them a 16-bit file is taken by its whole range, 0 to 65535, and 12-bit counts
#    would be all but black. mindseye says so when it happens.) PNG, TIFF and `.npy` all will do.
# 2. **What is your normalisation on that scale?** The same sum: subtract `black`, divide by `white - black`.
#
# Images of 8 bits that your training script divided by 255 need no `black` and `white`, and have their `mean` and `std`
# as they stand in the script.

# %%
(work / "images").mkdir()
kind_of = {}
for number in range(160):
    kind = KINDS[number % len(KINDS)]
    kind_of[f"{number:03d}.npy"] = kind.__name__
    np.save(work / "images" / f"{number:03d}.npy", exposure(kind))

black, white = 500, 2200
mean, std = [(1024 - black) / (white - black)], [300 / (white - black)]

network = me.load_network(net, mean=mean, std=std, size=SIDE)
images = me.load_photographs(work / "images", size=SIDE, channels=1, black=black, white=white)

# %% [markdown]
# A check that takes a second and saves hours: does the network still do through mindseye what it did in training?

# %%
first = torch.stack([images.read(i) for i in range(len(images))]).float() / 255
guessed = network(first).argmax(dim=1)
print(f"accuracy {sum(KINDS[g].__name__ == kind_of[p] for g, p in zip(guessed, images.paths, strict=True)) / len(images):.2f}")

# %% [markdown]
# ## 4. Choose a layer
#
# The table has the name of every layer, how many channels it has, how large its map is, and how many pixels of the image
# one position of the map can see. Take one whose field is about as large as the things you are after: for whole cells of
# 20 pixels that is `block3`.

# %%
me.layer_table(network)

# %% [markdown]
# ## 5. Find the facets
#
# **C**, the number of facets: too few, and two kinds come out blended in one picture; too many, and one kind
# comes out several times, which does no harm. Start with a few more than you think there are. Here we know: four.
#
# **k**, the number of channels a facet is drawn by: a quarter of the layer's 64 to begin with. Section 7 compares.

# %%
targets = me.discover_facets(network, images, "block3", me.Facets(C=4, k=16))
targets

# %% [markdown]
# Nobody told mindseye the kinds, so this is the first real result: does the layer keep them apart? Every dot is an image,
# near another where the layer answers both alike.

# %%
figure, ax = plt.subplots(figsize=(5, 4))
for kind in KINDS:
    own = [i for i, path in enumerate(targets.paths) if kind_of[path] == kind.__name__]
    ax.scatter(*targets.embedding[own].T, s=14, label=kind.__name__)
for c, centre in enumerate(targets.centres):
    ax.annotate(f"facet {c}", centre.tolist(), ha="center", bbox={"boxstyle": "round", "fc": "white", "alpha": 0.8})
ax.legend(fontsize=8)
ax.set_xticks([])
ax.set_yticks([])

for c in range(targets.C):
    members = [path for path, label in zip(targets.paths, targets.labels.tolist(), strict=True) if label == c]
    print(f"facet {c}:", dict(Counter(kind_of[path] for path in members)))

# %% [markdown]
# ## 6. Draw, with a second network as a judge
#
# A picture can please the network it was drawn by and nobody else. So train another one, of another build and another
# start, and let it say what it sees in the pictures: `transfer`. Here it is trained by Lightning, whose checkpoint we shall
# need below. In your own work the judge is any other network for the same images, an earlier version, say.

# %%
class Training(pl.LightningModule):
    """Net with kernels of 3, as a Lightning user would train it."""

    def __init__(self):
        super().__init__()
        self.net = Net(kernel=3)

    def training_step(self, batch, _):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


torch.manual_seed(1)
training = Training()
batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, labels), batch_size=32, shuffle=True)
trainer = pl.Trainer(
    max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, default_root_dir=work,
)  # fmt: skip
trainer.fit(training, batches)
trainer.save_checkpoint(work / "judge.ckpt")

judge_network = me.load_network(training.net.cpu(), mean=mean, std=std, size=SIDE)
judge = me.transfer_reference(judge_network, "block3", targets, images)

# %%
tell = me.Watchers(report=lambda step, terms: step % 50 or print(f"step {step}: DM {terms['dm']:.2f}"))
result = me.visualize(network, targets, me.Method(steps=200), transfer=[judge], watchers=tell)
result

# %% [markdown]
# **How to look at it.** In each row, what is clearer in the last picture than in the initial image is what these channels
# respond to. Discs with a hole, wavy lines and circles are there; of the crystals a bright side is left, which seems to be
# what the layer knows them by. Where an object stood differs from image to image, so it stands at several places.
#
# **Whether to trust it.** Look at three figures, each against its baselines in the lower rows of the table:
#
# - `transfer.cosine`, first of all: above *initial* the other network sees the facet better than in a blend of
#   photographs. At or below *noise* there is nothing in the picture but what its own network made up.
# - `transfer.retrieval` 1: the other network takes no picture for another facet.
# - `naturalness.tv` about 1 or below: no grain.
#
# ## 7. How k changes the picture
#
# The same facets with 4, 16 and all 64 channels, all pictures on one scale of grey. What stays the same whatever k is what the
# strongest channels stand for; what comes and goes with k is the share of the weaker ones. In layers of hundreds of
# channels the choice matters more: sweep over it (*compare_a_sweep*).

# %%
by_k = {k: me.visualize(network, targets.with_k(k), me.Method(steps=100), transfer=[judge]) for k in (4, 64)}
by_k[16] = result


def grid(columns, cmap="gray"):
    """A row for each facet, a column for each {title: images [C, ch, S, S]}, all from 0 to 1."""
    figure, axes = plt.subplots(targets.C, len(columns), figsize=(1.9 * len(columns), 1.9 * targets.C), squeeze=False)
    for column, (title, shown) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(title, fontsize=9)
        for c, ax in enumerate(column):
            ax.imshow(shown[c, 0], cmap=cmap, vmin=0, vmax=1)
            ax.set_xticks([])
            ax.set_yticks([])
    for c, ax in enumerate(axes[:, 0]):
        ax.set_ylabel(f"facet {c}")
    figure.tight_layout()


grid({"nearest photograph": targets.nearest(), "initial image": targets.initial}
     | {f"k = {k}": by_k[k].images for k in (4, 16, 64)})  # fmt: skip

# %% [markdown]
# ## 8. False friends
#
# What happens without what keeps pictures natural: single pixels trained (`PixelCanvas`), no random views, no total
# variation in the loss, from noise. The network by which it is drawn is as content with it as with the other.

# %%
from mindseye.visualizer.canvas import PixelCanvas  # noqa: E402

bare = me.Method(
    steps=200,
    canvas=lambda initial, photographs: PixelCanvas(initial, photographs, init="noise"),
    objective=me.Objective(tv=0),
    transformations=me.Transformations(jitter=0, scale=0, rotation=0, noise=0),
)
false_friend = me.visualize(network, targets, bare, transfer=[judge])
grid({"photograph": targets.nearest(), "calibrated": result.images, "false friend": false_friend.images})

# %%
def figures(summary):
    return [
        summary["fidelity"]["cosine"], summary["transfer"]["cosine"], summary["transfer"]["retrieval"],
        summary["naturalness"]["tv"],
    ]  # fmt: skip


print(f"{'':20}  fidelity  transfer  retrieved  TV × photos")
rows = {"calibrated": result.metrics["summary"], "false friend": false_friend.metrics["summary"]}
for name, summary in {**rows, **result.metrics["baselines"]}.items():
    print(f"{name:20}  {'  '.join(f'{value:8.2f}' for value in figures(summary))}")

# %% [markdown]
# `fidelity` alone cannot tell them apart: it is what was optimised. `transfer` and `TV` can, and so
# can your eyes. This is why the settings are as they are, and why a judge is worth its minute of training.
#
# ## 9. The same from the command line
#
# `network.target` names the class, or a function that builds the network, in its file; `network.weights` the file of its
# weights. This runs your code.


# %%
def terminal(command):
    """Run `mindseye …` with the Python of this notebook, and show what it says as plain text."""
    plain = {**os.environ, "FORCE_COLOR": ""}
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, cwd=work, env=plain, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    done.check_returncode()


torch.save(net.state_dict(), work / "my_net.pth")

terminal("mindseye layers network=callable network.target=my_net.py:Net network.mean=[0.308] network.std=[0.176]")

# %% [markdown]
# The whole run, with the Lightning checkpoint as the judge. Whatever prefix the trainer gave the names of the weights
# (`net.` here) is found and taken off. To look into a checkpoint itself it is `network=checkpoint network.path=judge.ckpt
# network.target=my_net.py:Net`, the rest being the same.

# %%
terminal("""mindseye network=callable network.target=my_net.py:Net network.weights=my_net.pth
    network.mean=[0.308] network.std=[0.176] network.size=64 layer=block3 k=16 C=4 steps=60
    images.root=images images.black=500 images.white=2200
    transfer=checkpoint transfer.checkpoint.path=judge.ckpt transfer.checkpoint.target=my_net.py:Net
    transfer.checkpoint.arguments={kernel:3} transfer.checkpoint.mean=[0.308] transfer.checkpoint.std=[0.176]
    transfer.checkpoint.size=64 transfer.checkpoint.layer=block3 cache=off hydra.run.dir=my_run""")

# %% [markdown]
# Open `facets.png` and `gallery.html` of that folder.
#
# ## 10. Six channels
#
# With more than three channels give `.npy` arrays, [channels, height, width] or [height, width, channels]; everything else
# is the same, with one mean and one std for each channel. Here: patches of a satellite image in six bands (red, green,
# blue, near infrared, two short-wave infrared), reflectance times 10000 as such files often have it. Vegetation is bright
# in the near infrared, water is dark in all of it, soil is bright in the short waves.

# %%
BANDS = ["red", "green", "blue", "near infrared", "short wave 1", "short wave 2"]
SPECTRA = {  # of background and of what lies on it, in units of 10000
    "fields": ([0.16, 0.14, 0.10, 0.26, 0.34, 0.28], [0.05, 0.10, 0.04, 0.48, 0.22, 0.12]),
    "lakes": ([0.05, 0.09, 0.04, 0.42, 0.20, 0.11], [0.04, 0.07, 0.10, 0.02, 0.01, 0.01]),
    "roads": ([0.18, 0.15, 0.11, 0.27, 0.36, 0.30], [0.30, 0.30, 0.31, 0.33, 0.34, 0.33]),
}


def patch(kind):
    """Six bands [6, 64, 64] of one patch."""
    if kind == "fields":
        turn = rng.uniform(0, np.pi)
        form = np.sin((x * np.cos(turn) + y * np.sin(turn)) / rng.uniform(2, 3)) > 0
    elif kind == "lakes":
        form = np.hypot((y - rng.uniform(24, 40)) * rng.uniform(0.7, 1.4), x - rng.uniform(24, 40)) < rng.uniform(12, 20)
    else:
        form = abs(x - rng.uniform(16, 48)) < 3
        form |= abs(y - rng.uniform(16, 48)) < 3
    below, above = (np.array(spectrum)[:, None, None] for spectrum in SPECTRA[kind])
    reflectance = np.where(form, above, below) * rng.uniform(0.85, 1.15) + rng.normal(0, 0.01, (6, SIDE, SIDE))
    return (10000 * reflectance).clip(0, 10000).astype(np.uint16)


names = [list(SPECTRA)[number % 3] for number in range(360)]
patches = np.stack([patch(name) for name in names])
band_mean, band_std = patches.mean(axis=(0, 2, 3)), patches.std(axis=(0, 2, 3))

torch.manual_seed(2)
normalised = (patches - band_mean[:, None, None]) / band_std[:, None, None]
six = train(Net(channels=6, classes=3), torch.tensor(normalised, dtype=torch.float32), torch.arange(360) % 3, epochs=4)

# %%
(work / "patches").mkdir()
for number, one in enumerate(patches[:120]):
    np.save(work / "patches" / f"{number:03d}_{names[number]}.npy", one)

white = 5000  # hardly anything reflects more than half of the light
six_network = me.load_network(six, mean=band_mean / white, std=band_std / white, size=SIDE)
six_images = me.load_photographs(work / "patches", size=SIDE, channels=6, black=0, white=white)
six_targets = me.discover_facets(six_network, six_images, "block3", me.Facets(C=3, k=16))
six_result = me.visualize(six_network, six_targets, me.Method(steps=80))
six_result

# %% [markdown]
# Sheets and galleries show the first three channels as red, green and blue, so it pays to save your bands in this order.
# The result has all six: `six_result.images` is [3, 6, 64, 64]. Here they are one by one, on one scale from 0 to 1.

# %%
figure, axes = plt.subplots(six_targets.C, 6, figsize=(11, 5.6))
for c, row in enumerate(axes):
    for band, ax in enumerate(row):
        shown = ax.imshow(six_result.images[c, band], cmap="viridis", vmin=0, vmax=1)
        ax.set_xticks([])
        ax.set_yticks([])
        if c == 0:
            ax.set_title(BANDS[band], fontsize=9)
    row[0].set_ylabel(f"facet {c}\n{Path(six_targets.paths[int(six_targets.chosen[c, 0])]).stem[4:]}")
figure.colorbar(shown, ax=axes, shrink=0.6, label="reflectance, 1 is 5000")

# %% [markdown]
# ## 11. Where to change the loss
#
# It is in `mindseye/visualizer/objective.py`: `Objective._terms` computes DM, AD, the penalty and the total variation from
# the layer's answer and the target, and `Objective.__call__` adds them up. To weigh them otherwise no code is needed:
# `me.Objective(dm=8, ad=1, strength=40, penalty=1, tv=5, gain=1)`, or `objective.tv=0` on the command line.
#
# A loss of your own is a class in a file of yours, and nothing has to be registered: `docs/extending.md` has a whole one of
# fifteen lines, `me.visualize(network, targets, me.Method(objective=MeanActivation()))`. Measures, filters and canvases of your own
# go the same way.
