"""Overrides that are wrong, or at least odd, made of right ones: the same for the same seed."""

import random

RIGHT = (
    "k=8", "C=3", "steps=4", "seed=1", "layer=layer3.0", "depth=middle", "previous=layer2.0", "snapshots=2",
    "gradients=null", "checkpoint=5.5", "precision=bfloat16", "compile=false", "measure=fidelity.cosine",
    "facets_per_batch=2", "network=demo", "network=resnet18", "network.weights=null", "network.size=64",
    "network.layers={late: layer4.0}", "images.root=/nowhere", "images.size=48", "images.kind=padlock",
    "images.count=24", "facets=published", "facets.N=4", "facets.gamma=0.1", "facets.perplexity=30",
    "facets.selection=farthest", "facets.tsne=auto", "facets.batch_size=8", "facets.workers=0", "objective=released",
    "objective.gain=2.0", "objective.dm=1", "objective.match=cosine", "objective.pooled=true", "objective.r=1.0",
    "canvas=maco", "canvas.init=noise", "canvas.decay=1.2", "filters=published", "filters=[mask,blur]",
    "schedule=constant", "schedule.lr=[0.01,0.001]", "schedule.views=[1,0,0.5]", "transformations=none",
    "transformations.jitter=0.1", "optimizer=sgd", "optimizer.betas=[0.0,0.9]", "trainer.devices=2",
    "trainer.accelerator=cpu", "logger=csv", "logger=[wandb,csv]", "transfer=demo", "transfer.demo.layer=layer3.0",
    "cache=off", "cache.limit_gb=2", "experiment=smoke", "ablation=no_dm", "length=published",
    "hydra.run.dir=/nowhere/run", "hydra/launcher=basic", "hydra.job.name=x", "hydra.sweeper.max_batch_size=2",
)  # fmt: skip
VALUES = (
    "", "null", "???", "true", "nan", "-inf", "1e999", "-1", "0", "0.0", "-0.5", "1.5", "9" * 400, "9" * 5000,
    "1" + "0" * 40, "1e-320", "0x10", "1_000", "abc", "ünï", "🙂", "\u202e", "\x01", "a b", "a=b", "a:b", "'", '"',
    "'a", "[", "]", "[]", "[1", "[1,2,3]", "[[[[]]]]", "[a,{b: c}]", "{", "{}", "{a: 1}", "{_target_: os.getcwd}",
    "${", "${}", "${k}", "${nope}", "${oc.env:NOPE}", "${oc.env:HOME}", "${hydra:run.dir}", "${oc.decode:'['}",
    "${${k}}", "${oc.nothing:1}", "$", "\\", "1,2,x", "1,,2", "range(1,3)", "range(3,1)", "range(1,9,0)",
    "interval(1,2)", "choice()", "choice(1,x)", "glob(*)", "sort(3,1)", "shuffle(1,2)", "tag(a,1)", "int(3.5)",
    "float(x)", "extend_list(1)", "*", "~", "..", "../../etc", "%s%n", "<b>", "; rm -rf .", "-", "--", "/",
)  # fmt: skip


def wrong_words(count, seed):
    """So many overrides, each one of RIGHT with something done to its key, its value, or both."""
    draw = random.Random(seed)
    return [_mutated(draw) for _ in range(count)]


def _mutated(draw):
    key, _, value = draw.choice(RIGHT).partition("=")
    how = draw.randrange(8)
    if how <= 2:
        value = draw.choice(VALUES)
    if how in (2, 3, 4):
        key = _misspelt(key, draw)
    if how == 5:
        key = draw.choice(("+", "++", "~", "+~", "@", ".", "hydra.", " ", "=")) + key
    if how == 6:
        key = draw.choice((f"{key}.{value}", f"{key}@{key}", f"{key}.", f"{key}..a", f"{key}[0]", key.split(".")[0]))
        value = draw.choice(VALUES)
    if how == 7:
        place = draw.randrange(len(value) + 1)
        value = value[:place] + draw.choice("()[]{}'\"\\$,:=🙂 \t") + value[place:]
    return key if draw.random() < 0.05 else f"{key}={value}"


def _misspelt(key, draw):
    place = draw.randrange(len(key))
    letter = draw.choice("abcxyz._/@0é-")
    return draw.choice((key[:place] + key[place + 1 :], key[:place] + letter + key[place:], key[::-1], key.upper()))
