import re
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from mindseye.commands import checking
from mindseye.commands.checking import check, check_overrides
from mindseye.commands.composing import ConfigurationError, compose, config_folder, make, options_with
from mindseye.commands.composing import options as files_of
from mindseye.commands.constructors import check_constructors, with_dots
from mindseye.commands.grammar import escaped, quoted
from mindseye.commands.launchers import anchored
from mindseye.commands.main import main
from mindseye.commands.meant import TRAINER, no_such_setting, option_meant
from mindseye.commands.parts import make_method, try_parts, with_start
from mindseye.facets.photographs import load_photographs
from mindseye.fields import annotation_of, default_of, described, fields_of
from mindseye.fields import check as check_value
from mindseye.settings import plain_settings
from mindseye.sweeps.manifest import cell_folder
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.method import Method, calibrated_adam
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.schedules import Schedules
from mindseye.visualizer.transformations import Transformations

# What an option cannot do without.
NEEDS = {
    "network=torchvision": ["network.name=resnet18"],
    "network=timm": ["network.name=resnet18"],
    "network=callable": ["network.target=a.b", "network.mean=[0]", "network.std=[1]"],
    "network=checkpoint": ["network.path=x.ckpt", "network.target=resnet18"],
    "images=folder": ["images.root=somewhere"],
    "experiment=search": ["transfer=demo"],
}


def options():
    for group in sorted(config_folder().iterdir()):
        if group.is_dir() and group.name != "hydra":
            for file in sorted(group.glob("*.yaml")):
                yield f"{group.name}={file.stem}"


@pytest.mark.parametrize("option", list(options()))
def test_every_option_of_every_group_composes_and_is_checked(option):
    needs = [need.replace("network.", f"{option.split('=')[0]}.") for need in NEEDS.get(option, [])]
    if option.startswith("transfer="):
        place = option.replace("=", ".")
        needs = [n.replace("network", place, 1) for n in NEEDS.get(option.replace("transfer", "network"), [])]
    check_constructors(check(compose([option, *needs])).parts)


@pytest.mark.parametrize("file", sorted(config_folder().rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_file_says_what_it_is(file):
    first = next(line for line in file.read_text().splitlines() if line != "# @package _global_")
    assert first.startswith("# ")


def test_the_defaults_in_the_files_are_the_defaults_in_python():
    config = compose([])
    assert instantiate(config.objective) == Objective()
    assert instantiate(config.schedule) == Schedules()
    assert instantiate(config.transformations) == Transformations()
    weight = torch.nn.Parameter(torch.zeros(1))
    assert instantiate(config.optimizer)([weight]).defaults["betas"] == calibrated_adam([weight]).defaults["betas"]
    for key, field in plain_settings().items():
        assert OmegaConf.select(config, key) == default_of(field), key
    assert {name: default_of(fields_of(Method)[name]) for name in ("objective", "schedule", "transformations")} == {
        "objective": Objective(), "schedule": Schedules(), "transformations": Transformations(),
    }  # fmt: skip


@pytest.mark.parametrize(("objective", "betas"), [("published", [0.9, 0.99]), ("released", None)])
def test_presets_keep_their_own_optimiser_and_length(objective, betas):
    config = compose([f"objective={objective}"])
    assert config.optimizer.get("betas") == betas
    assert config.steps == 200
    assert compose([f"objective={objective}", "steps=7"]).steps == 7


@pytest.mark.parametrize(("objective", "canvas"), list(product(["published", "released"], ["pixel", "maco"])))
def test_presets_bring_their_groups_but_the_command_line_wins(objective, canvas):
    config = compose([f"objective={objective}", f"canvas={canvas}"])
    assert config.facets.weighting == "published"
    assert config.transformations.noise == 0
    assert list(config.filters)[:3] == ["mask", "blur", "tv"]
    assert config.canvas._target_.lower().endswith(f"{canvas}canvas")
    assert compose([f"objective={objective}"]).canvas._target_.endswith("PixelCanvas")


def test_published_numbers_are_the_papers():
    config = compose(["objective=published"])
    assert config.schedule.penalty == [1e-3, 1e-4]
    assert config.facets.gamma == 1e-5
    assert (config.facets.clusters, config.facets.components) == ("embedding", 50)
    assert (config.facets.effective, config.facets.selection) == (None, "nearest")
    assert config.facets.N == 10
    assert config.filters.blur.every == config.filters.tv.every == 10
    assert instantiate(config.objective) == Objective(
        dm=1, ad=1, strength=0, matching=Matching(weight=0), penalty=1, tv=0, match="dot_product", distance="summed",
        gain=1, reduction="sum",
    )  # fmt: skip


WRONG = {
    "kk=3": "did you mean k?",
    "objective.gian=3": "objective.gain",
    "gain=3": "objective.gain",
    "objectiv=published": "objective",
    "objective=pubished": "did you mean published",
    "network=resnet5": "did you mean resnet50",
    "network=net.py:build": "network=callable network.target=net.py:build",
    "k=abc": "k must be a whole number of 1 or more, not abc",
    "C=many": "C must be a whole number of 1 or more or auto, not many",
    "facets.clusters=tsne": "must be components, embedding or consensus, not tsne",
    "facets.effective=0.5": "a number of 1 or more or null",
    "facets.held_out=0.6": "a number of 0 to 0.5",
    "facets.gamma=0": "a number of 1e-09 or more",
    "objective.gain=inf": "must be a number above 0, not inf",
    "schedule.lr=3": "schedule.lr: must be a list [start, end] or [start, end, until], not 3",
    "schedule.lr=[0.1]": "schedule.lr: must be a list [start, end]",
    "schedule.lr=[0.1,-1]": "schedule.lr: start and end must be numbers of 0 to 3.4e+38, not -1",
    "schedule.lr.start=3": "give the whole list, schedule.lr=[0.06,0.005] say",
    "k=0": "a whole number of 1 or more",
    "k=null": "a whole number of 1 or more, not null",
    "steps=1.5": "a whole number",
    "steps=true": "a whole number",
    "seed=-1": "0 to 4,294,967,295",
    "depth=lat": "early, middle or late",
    "images.size=0": "1 to 8,192 or null",
    "images.black=0": "black and white must be two different numbers",
    "images=folder": "images.root must be given",
    "network=callable": "network.target must be given",
    "objective.match=cos": "cosine, dot_product or dot_product_cosine",
    "objective.gain=strong": "must be a number above 0, not strong",
    "objective.pooled=3": "true or false",
    "canvas.init=grey": "facet, sketch, noise, photograph or the path of an image, not grey, which is no file",
    "facets.weighting=softmax": "calibrated or published",
    "trainer.devices=two": "a whole number",
    "precision=8": "float32, tf32, bfloat16 or float16",
    "compile=maybe": "compile must be true or false, not maybe",
    "trainer.precision=bfloat16": "precision=float32, tf32, bfloat16 or float16",
    "trainer.max_epochs=3": "steps=N",
    "+trainer.max_epochs=3": "steps=N",
    "trainer.strategy=ddp": "trainer.devices=N",
    "trainer.profiler=fast": "trainer.profiler must be simple, advanced, pytorch or null",
    "lr=0.1": "schedule.lr=[START,END]",
    "+lr=0.1": "schedule.lr=[START,END]",
    "learning_rate=0.1": "schedule.lr=[START,END]",
    "optimizer.lr=0.1": "schedule.lr=[START,END]",
    "optimizer.learning_rate=0.1": "schedule.lr=[START,END]",
    "seed_everything=1": ": seed=N",
    "ckpt_path=last.ckpt": "network=checkpoint network.path=FILE",
    "fast_dev_run=true": "experiment=smoke",
    "trainer.fast_dev_run=true": "experiment=smoke",
    "network.pretrained=true": "network.weights=DEFAULT",
    "images=/photos": "give images.root=/photos",
    "images=.": "give images.root=.",
    "images=dem": "did you mean demo",
    "network=last.ckpt": "network=checkpoint network.path=last.ckpt",
    "network=package.Net": "network=callable network.target=package.Net",
    "transfer=package.Net": "transfer=callable transfer.callable.target=package.Net",
    "model=resnet18": "network=NAME",
    "data_dir=/photos": "images.root=FOLDER",
    "trainer=gpu": "trainer.accelerator=gpu",
    "batch_size=4": "facets.batch_size=N",
    "output_dir=here": "hydra.run.dir=FOLDER",
    "wandb.project=x": "logger=wandb and logger.wandb.project",
    "logger.wandb.entity=me": "logger=wandb and logger.wandb.entity",
    "logger.project=me": "logger=wandb and logger.wandb.project",
    "logger=mlflow": "any of Lightning's by a file of your own",
    "callbacks=early_stopping": "EarlyStopping would end the fit",
    "callbacks=mine": "+callbacks.mine._target_=my.module.Class",
    "callbacks.early_stopping.patience=3": "EarlyStopping would end the fit",
    "callbacks.mine.patience=3": "+callbacks.mine._target_=my.module.Class first",
    "callbacks=lr_monitor": "callbacks.lr_monitor: LearningRateMonitor tells trackers alone, and there is none",
    "+callbacks.mine._target_=pytorch_lightning.callbacks.RichProgressBar": "callbacks.mine: RichProgressBar has no",
    "+callbacks.mine._target_=lightning.pytorch.callbacks.LambdaCallback": "give pytorch_lightning.callbacks.Lambda",
    "+callbacks.mine._target_=torch.nn.Linear": "torch.nn.Linear is no subclass of pytorch_lightning.Callback",
    "+filters.mine._target_=pytorch_lightning.callbacks.ModelPruning": "filters.mine: ModelPruning changes the network",
    "filters.blur.every=3": "there is no filters.blur yet: filters=blur first",
    "filters=mine.Fade": "+filters.mine._target_=mine.Fade",
    "objective=mine.Darker": "objective._target_=mine.Darker",
    "optimizer=adamw": "give optimizer._target_=torch.optim.AdamW",
    "optimizer.momentum=0.9": "but of optimizer=sgd",
    "optimizer.weight_decay=0.1": "torch.optim.Adam takes it: +optimizer.weight_decay=0.1 adds it",
    "network.target=mine:build": "but of network=callable or network=checkpoint",
    "network.weights=true": "must be the name of published weights, a file or null (random ones), not true",
    "network=vit_b_16": "network=torchvision network.name=vit_b_16",
    "metrics=mine.sparsity": "+metrics.NAME._target_=mine.sparsity",
    "logger=[csv,null]": "null is none of a group's files",
    "trainer.max_epoch=3": "as for max_epochs: steps=N",
    "+callbacks.mine=3": "give callbacks.mine._target_=my.module.Class",
    "hydra/sweeper=nevergrad": "pip install hydra-nevergrad-sweeper",
    "hydra/launcher=slurms": "did you mean slurm",
    "network.layers=3": "a mapping",
    "optimizer.betas=3": "a list",
    "optimizer.beta=3": "optimizer.betas",
    "foo": "write key=value",
    "k=[1": "write key=value",
    "k=8,abc": "a whole number",
    "objective=calibrated,oops": "there is no such objective",
    "k=range(0,3)": "a whole number of 1 or more",
    "+nonsense=1": "there is no such setting",
    "~k": "give k another value",
    "~objective.tv": "give objective.tv another value",
    "+optimizer.lr=1": "schedule.lr, a list",
    "+optimizer.learning_rate=1": "schedule.lr=[START,END]",
    "measure=fidelity": "fidelity.cosine",
    "measure=transfer.cosine": "transfer=NETWORK",
    "checkpoint=0": "a number of 1 or more",
    "logger=[csv,foo]": "logger: there is no foo; there are csv, none, tensorboard, wandb",
    "transfer=[resnet18,resnet51]": "transfer: there is no resnet51; did you mean resnet50 or",
    "zzzz.qqqq=3": "there is no such setting; mindseye --cfg job shows all",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_is_wrong_is_refused_in_one_line_that_says_what_is_right(override):
    with pytest.raises(ConfigurationError) as caught:
        check_overrides([override])
    assert re.search(re.escape(WRONG[override]), str(caught.value))
    assert "\n" not in str(caught.value).strip()


def test_all_that_lightning_s_trainer_takes_is_taken_or_its_reason_said():
    import inspect

    from pytorch_lightning import Trainer

    # Nodes do not train together here, each draws facets of its own: Lightning's num_nodes is another thing.
    ours = {key.partition(".")[2] for key in plain_settings() if key.startswith("trainer.")} - {"nodes"}
    asked = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert ours & set(TRAINER) == set()
    assert ours <= asked
    assert asked == ours | set(TRAINER)


@pytest.mark.parametrize("words", [["+experiment=smoke"], ["++experiment=smoke"], ["+k=4"], ["+objective=published"]])
def test_a_plus_in_front_of_what_is_there_is_no_mistake(words):
    check_overrides([quoted(word) for word in words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["k=4,8"], "k=4,8: these are several values, and a run takes one: mindseye -m … sweeps over them"),
        (["k=range(4,8)"], "mindseye -m … sweeps over them"),
        (["logger=wandb,csv"], "logger=[wandb,csv] has all at once"),
        (["--cfg", "job", "k=4,8"], "k=4,8: these are several values, and a run takes one: --cfg and --info show one"),
        (["-m", "--cfg", "job", "k=4,8"], "--cfg and --info show one"),
    ],
    ids=str,
)
def test_several_values_where_one_is_taken(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("group", "name", "said"),
    [
        ("hydra/sweeper", "ax", "needs a package that is not installed: pip install hydra-ax-sweeper"),
        ("hydra/job_logging", "colorlog", "pip install hydra-colorlog"),
        ("network", "timm/resnet50", "give network=timm network.name=resnet50"),
        ("network", "hf-hub:timm/resnet50.a1_in1k", "give network=timm network.name=resnet50.a1_in1k"),
        ("network", "torchvision.models.vit_b_16", "give network=torchvision network.name=vit_b_16"),
        ("transfer", "torchvision/vit_b_16", "give transfer=torchvision transfer.torchvision.name=vit_b_16"),
        ("network", "nets/net.py", "network=callable network.target=nets/net.py:FUNCTION"),
        ("network", "microsoft/resnet-50", "network=callable network.target=my_net.py:FUNCTION"),
        ("transfer", "last.ckpt", "transfer=checkpoint transfer.checkpoint.path=last.ckpt"),
        ("canvas", "mine:Grey", "canvas._target_=mine:Grey"),
        ("optimizer", "torch.optim.AdamW", "optimizer._target_=torch.optim.AdamW"),
        ("optimizer", "RMSprop", "with `_target_: torch.optim.RMSprop` and `_partial_: true`"),
        ("logger", "pytorch_lightning.loggers.MLFlowLogger", "+logger.mine._target_=pytorch_lightning.loggers.MLFlow"),
        ("callbacks", "pytorch_lightning.callbacks.Timer", "Timer would end the fit"),
        ("callbacks", "rich_progress_bar", "RichProgressBar has no place here"),
    ],
)
def test_an_option_of_other_programs_leads_to_what_does_it_here(group, name, said):
    assert option_meant(group, name).startswith(f"{group}={name}")
    assert said in option_meant(group, name)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("weight_decay", "+optimizer.weight_decay=N"), ("momentum", "optimizer=sgd optimizer.momentum=N"),
        ("run_name", "logger.wandb.name=NAME"), ("tags", "logger=wandb and logger.wandb.tags"),
        ("num_classes", "network.num_classes=N, of network=torchvision and network=timm"),
        ("trainer.stategy", "as for strategy: "), ("learning_rat", "as for learning_rate: the learning rate is"),
        ("trainer.acelerator", "did you mean trainer.accelerator?"), ("objective.gian", "did you mean objective.gain?"),
        ("objective.zzz", "; and so on"),
    ],
)  # fmt: skip
def test_a_key_of_other_programs_leads_to_what_does_it_here(key, said):
    assert said in no_such_setting(key, [*plain_settings(), "objective.gain", "objective.r"], "; and so on")


@pytest.mark.parametrize("group", ["optimizer", "canvas", "network"])
def test_a_setting_of_another_file_of_its_group_is_one(group):
    """Every setting that some file of the group has and the default has not leads to those that have it."""
    held = {name: yaml.safe_load((config_folder() / group / f"{name}.yaml").read_text()) for name in files_of(group)}
    chosen = set(OmegaConf.to_container(compose([]), resolve=False)[group])
    elsewhere = {key for settings in held.values() for key in settings} - chosen - {"_convert_", "defaults"}
    assert elsewhere
    for key in elsewhere:
        assert set(options_with(f"{group}.{key}")) == {option for option, settings in held.items() if key in settings}


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, torch.optim.SparseAdam, lambda parameters: None])
def test_an_optimiser_that_cannot_take_a_step_is_refused_before_the_fit(optimizer):
    with pytest.raises(ConfigurationError, match=r"^optimizer: ") as caught:
        try_parts(Method(optimizer=optimizer), 3, 8)
    assert "\n" not in str(caught.value)
    try_parts(Method(optimizer=torch.optim.AdamW), 3, 8)


def test_a_search_for_the_worst_is_refused():
    """Whatever package brings the sweeper: where its words for it stand."""
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "max_batch_size": None}
    for place in ({"direction": "minimize"}, {"optim": {"maximize": False}}):
        composed = OmegaConf.create({"hydra": {"sweeper": {**sweeper, **place}}})
        with pytest.raises(ConfigurationError, match=r"looks for the worst, since the largest .* is the best: hydra\."):
            checking._check_direction(composed, None)
        checking._check_direction(composed, "naturalness.spectrum")
        checking._check_direction(composed, "naturalness.tv")  # near 1 is best
    checking._check_direction(OmegaConf.create({"hydra": {"sweeper": {**sweeper, "direction": "maximize"}}}), None)
    checking._check_direction(OmegaConf.create({"hydra": {"sweeper": sweeper}}), None)


def test_a_normalisation_that_is_no_list_is_shown_as_one():
    with pytest.raises(ConfigurationError, match=r"network.mean must be a list .* \(\[0.5\] for one\), not 0.31"):
        check_overrides(["network=callable", "network.target=a.b", "network.mean=0.31", "network.std=[0.2]", "layer=a"])


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("layer=6.20", ["6.20"]),
        ("layer=0.10", ["0.10"]),
        ("previous=2", ["2"]),
        ("transfer.demo.layer=7.2", ["7.2"]),
        ("layer=6.2,6.20,layer4.1", ["6.2", "6.20", "layer4.1"]),
        ("layer=null", [None]),
    ],
)
def test_a_layer_s_name_is_no_number(word, names):
    """6.20 is the paper's name of layer3.20; as a number it would be 6.2, another layer."""
    key, _, value = quoted(word).partition("=")
    read = [OmegaConf.select(compose(["transfer=demo", f"{key}={layer}"]), key) for layer in value.split(",")]
    assert read == names
    assert quoted("k=6.20") == "k=6.20"


def test_an_experiment_s_own_sweep_is_looked_at_too():
    check_overrides(["+hydra.sweeper.params={k: '5,10', C: 'range(2,4)'}"])
    with pytest.raises(ConfigurationError, match="a whole number of 1 or more"):
        check_overrides(["+hydra.sweeper.params={k: '5,-10'}"])
    check_overrides(["+hydra.sweeper.params={k: '5,-10'}", "k=3"])  # the command line wins


@pytest.mark.parametrize("text", ["plain", "a b,c=d", "it's", r"back\\slash", r"end\\", r"\\'", "${x}", "[1]", "ünï"])
def test_an_escaped_text_comes_back_as_it_was(text):
    config = compose([f"images.root={escaped(text)}"])
    assert OmegaConf.to_container(config, resolve=False)["images"]["root"] == text


def test_right_overrides_pass():
    check_overrides(
        ["-m", "network=resnet50,resnet18", "depth=early,middle,late", "k=10,50", "C=range(2,9,2)", "objective.gain=1"]
    )
    check_overrides(["objective=published,released", "hydra.run.dir=/tmp/x", "canvas.init=noise", "layer=6.5.conv1"])
    check_overrides(["filters=published", "filters.blur.every=5", "filters.tv=null"])
    judge = "transfer.squeezenet1_1"
    check_overrides(["transfer=[resnet18,squeezenet1_1]", f"{judge}.layer=features.12", f"{judge}.weights=null"])
    check_overrides(["logger=[wandb,csv]", "logger.wandb.offline=false", "logger.wandb.tags=[a]"])


# ---- what must be there before anything is imported ------------------------------------------------------------------

OWN = ("network=callable", "network.mean=[0.5]", "network.std=[0.25]")
NET = "network.target=nets/net.py:build"
CHECKPOINT = ("network=checkpoint", "network.path=x.ckpt")
THERE = [
    ["images.root=photos"], ["images.root=photos/../photos"], ["images.root='my photos'"], ["images.root=~/photos"],
    ["images.root=2012"], ["images.root=${oc.env:HOME}/photos"], ["-m", "images.root=photos,2012"],
    ["hydra.job.chdir=true", "images.root=nowhere"], ["canvas.init=~/net.py"], ["-m", "canvas.init=photograph,net.py"],
    ["hydra.launcher._target_=hydra_plugins.mindseye_launchers.SlurmLauncher", "images.root=/scratch/nowhere"],
    [*OWN, NET, "layer=conv1"], [*OWN, "network.target='~/nets/net.py:build'", "layer=0"],
    [*OWN, "network.target=no.such.module.build", "layer=1"], [*OWN, "network.target=no.py.module:build", "layer=1"],
    [*OWN, NET, "network.layers={late: conv1}"], [*OWN, NET, "depth=early", "network.layers={early: conv1}"],
    [*OWN, NET, "network.name=resnet18"], [*OWN, "network.target=torchvision.models.resnet18"],
    [*CHECKPOINT, "network.target=resnet18", "network.name=mine"], ["-m", *OWN, NET, "layer=conv1,conv2"],
    ["network=timm", "network.name=resnet50"],
]  # fmt: skip
NOT_THERE = [
    (["images.root=nowhere"], "images.root=nowhere does not exist"),
    (["images.root=net.py"], "images.root=net.py is a file, not a folder"),
    (["images.root=~/nowhere"], "does not exist"),
    (["-m", "images.root=photos,nowhere"], "images.root=nowhere does not exist"),
    (["+hydra.sweeper.params={images.root: 'photos,nowhere'}"], "images.root=nowhere does not exist"),
    (["-m", "images=demo,folder", "images.root=nowhere"], "does not exist"),
    (["canvas.init=photos"], "the path of an image, not photos, which is a folder"),
    (["-m", "canvas.init=sketch,photo graph"], "not photo graph, which is no file; did you mean photograph?"),
    ([*OWN, "network.target=nofile.py:build", "layer=conv1"], "there is no file 'nofile.py'"),
    ([*OWN, "network.target=nets/net.py", "layer=conv1"], "give nets/net.py:FUNCTION, the function"),
    ([*OWN, NET], "layer must be given"),
    ([*OWN, NET, "network.layers={early: conv1}"], "names none for depth=late"),
    (["network=torchvision", "network.name=alexnet"], "layer must be given"),
    (["-m", "network=demo,torchvision", "network.name=alexnet"], "layer must be given"),
    (["transfer=callable", "transfer.callable.target=nofile.py:build", "transfer.callable.layer=conv1",
      "transfer.callable.mean=[0.5]", "transfer.callable.std=[0.5]"], "transfer.callable.target=nofile.py:build"),
]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current directory, which is the home folder too, with photographs in class folders and a network's file."""
    for folder in ("photos/cat", "my photos", "2012", "nets"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("nets/net.py", "net.py"):
        (tmp_path / file).write_text("raise RuntimeError('nothing imports this')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("words", THERE, ids=str)
def test_what_is_there_passes(words, place):
    check_overrides([quoted(word) for word in words])


@pytest.mark.parametrize(("words", "message"), NOT_THERE, ids=str)
def test_what_is_not_there_is_said_before_anything_starts(words, message, place):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        check_overrides([quoted(word) for word in words])


def values_of(word):
    """What Hydra makes of an override: its value, or each value of a sweep."""
    [override] = OverridesParser.create().parse_overrides([word])
    if override.is_sweep_override():
        return [getattr(value, "text", value) for value in override.sweep_iterator()]
    return [getattr(override.value(), "text", override.value())]


@pytest.mark.parametrize("key", plain_settings())
def test_every_plain_setting_takes_its_default_and_no_other_kind(key):
    field = plain_settings()[key]
    annotation = annotation_of(field)
    check_value(key, default_of(field), annotation)
    with pytest.raises(ValueError, match=f"^{key} must be "):
        check_value(key, {"a": 1}, annotation)
    words = described(annotation)
    limits = re.search(r"of (\S+) (?:or more|to (\S+))", words)
    least = float(limits[1].replace(",", "")) if limits else None
    if least is not None:
        kind = int if "whole" in words else float
        check_value(key, kind(least), annotation)
        with pytest.raises(ValueError, match=f"^{key} must be "):
            check_value(key, kind(least) - 1, annotation)


PLACES = (
    "images.root", "cache.folder", "network.path", "network.weights", "network.target", "transfer.demo.path",
    "transfer.other.weights", "transfer.mine.target", "logger.csv.save_dir", "+logger.wandb.dir", "hydra.run.dir",
    "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.launcher.submitit_folder",
    "+metrics.mine.file", "canvas.my_path", "canvas.init",
)  # fmt: skip


@pytest.mark.parametrize("key", PLACES)
@pytest.mark.parametrize(
    "path", ["sw/seed=0-803ee51692", "a=b=c/net.py", "my photos/x=1", "x#1/ö=ü", "(a)/b&c", "it's/k=4", "=", "a;b"]
)
def test_a_path_is_taken_as_it_is_written(key, path):
    assert values_of(quoted(f"{key}={path}")) == [path]


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"])
def test_the_name_that_a_cell_is_given_may_be_given_back(key):
    folder = f"sweeps/{cell_folder(['network=resnet50', 'k=10', 'images.root=a b'])}"
    assert values_of(quoted(f"{key}={folder}")) == [folder]
    composed = compose([anchored(quoted(f"{key}=/{folder}"))], with_hydra=True)
    assert OmegaConf.select(composed, key) == f"/{folder}"


def test_every_command_takes_a_path_as_it_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("k=4,C=2 x").mkdir()
    Path("k=4,C=2 x/net.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())\n"
    )
    words = ["network=callable", "network.target=k=4,C=2 x/net.py:build", "network.mean=[0,0,0]", "network.std=[1,1,1]"]
    main(["layers", *words])
    assert "Conv2d" in capsys.readouterr().out
    main(["cache", f"cache.folder={tmp_path}/k=4,C=2 x/cache"])
    assert "k=4,C=2 x/cache" in " ".join(capsys.readouterr().out.split())


def test_paths_of_a_sweep_are_each_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = "network.weights=sw/k=4,C=2/best.pth"
    assert values_of(quoted(word)) == ["sw/k=4", "C=2/best.pth"]
    Path("sw/k=4,C=2").mkdir(parents=True)
    Path("sw/k=4,C=2/best.pth").touch()
    assert values_of(quoted(word)) == ["sw/k=4,C=2/best.pth"]  # there is one of that name
    assert values_of(quoted("images.root=a b,c=d,e")) == ["a b", "c=d", "e"]
    assert values_of(quoted("images.root='a,b',c")) == ["a,b", "c"]
    assert quoted(r"images.root=a\,b c") == r"images.root=a\,b c"  # as it is: that comma is a letter


def test_a_comma_parts_nothing_where_there_is_no_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["images.root=a=1,b", "cache.folder=c=1,d"])
    assert "images.root=a=1,b does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "dotted"),
    [("mine:Darker", "mine.Darker"), ("mine.py:Darker", "mine.Darker"), ("./own/mine.py:Darker", "own.mine.Darker"),
     ("own.mine:Darker", "own.mine.Darker"), ("mine.Darker", "mine.Darker")],
)  # fmt: skip
def test_one_s_own_part_is_named_as_a_network_is(target, dotted):
    assert with_dots({"objective": {"_target_": target}})["objective"]["_target_"] == dotted


def test_a_file_elsewhere_has_no_dotted_path():
    with pytest.raises(ConfigurationError, match=r"give package.module.Darker"):
        with_dots({"_target_": "/far/mine.py:Darker"})


# ---- what one's own parts raise --------------------------------------------------------------------------------------

FAILING = """
import torch

class Filter:
    def __init__(self):
        self.prepare()

    def prepare(self):
        torch.nn.Linear(2, 2).load_state_dict({})

def build(rows):
    return [][rows]

def coloured():
    raise RuntimeError("\x1b[1mno\x1b[0m such thing\\nand more")

def plain():
    raise ValueError("say this")
"""


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": "failing.Filter"},
         "failing.Filter failed: RuntimeError in line 9 of failing.py: Error(s) in loading state_dict for "),
        ({"_target_": "failing.build", "rows": 3}, "failing.build failed: IndexError in line 12 of failing.py: list "),
        ({"_target_": "failing.build"}, "failing.build failed: TypeError: build() missing 1 required "),
        ({"_target_": "failing.coloured"},
         "failing.coloured failed: RuntimeError in line 15 of failing.py: no such thing and more"),
        ({"_target_": "failing.plain"}, "say this"),
    ],
    ids=["torch", "own", "arguments", "colours", "ValueError"],
)  # fmt: skip
def test_a_mistake_in_one_s_own_part_is_named_with_its_line(node, said, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        make(node, "filters.mine")
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    message = str(caught.value).removeprefix("filters.mine: ")
    assert message.startswith(said)
    assert "\x1b" not in message


def test_what_is_wrong_with_layer_k_device_or_weight_is_told_before_lightning_and_any_photograph(tmp_path):
    """Lightning takes longer to import than all else together; the demo's photographs are drawn into the folder."""
    import subprocess

    (tmp_path / "no.jpg").write_bytes(b"no picture")
    program = """
import sys
from mindseye.commands.main import main
wrong = [["layer=layer3.5"], ["k=4096"], ["trainer.accelerator=mps"], ["objective.tv=-1"], ["schedule.lr=0.1"],
         ["canvas.init=no.jpg"], ["canvas=maco", "canvas.init=photograph"],
         ["objective.anchor.weight=1", "objective.anchor.layer=fc"], ["transfer=demo", "transfer.demo.layer=layer9"]]
for words in wrong:
    try:
        main([*words, "hydra.run.dir=run"])
    except SystemExit as end:
        assert end.code == 1
assert "pytorch_lightning" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    expected = ["no layer 'layer3.5'", "k must be 1 to 160", "machine has none", "objective.tv must be", "schedule.lr:",
            "canvas.init=no.jpg: ", "take the fourier or the pixel canvas", "name layers before the target",
            "transfer.demo.layer: there is no layer 'layer9'"]  # fmt: skip
    for line, words in zip(done.stderr.splitlines(), expected, strict=True):
        assert words in line
    assert not (tmp_path / "run" / "photographs").exists()


@pytest.mark.parametrize(("name", "side"), [("wide.png", 24), ("tall.png", 16)])
def test_an_image_of_any_size_is_read_as_the_photographs_are(name, side, tmp_path):
    """The central square, resized: one way for all images that a network sees."""
    shape = (40, 64, 3) if name == "wide.png" else (50, 32, 3)
    pixels = np.random.default_rng(0).integers(40, 200, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    run = check(compose(["canvas=pixel", quoted(f"canvas.init={tmp_path / name}")]))
    method = with_start(run, make_method(run), 3, side)
    photographs = load_photographs(tmp_path, size=side).read(0)[None, None].float() / 255
    drawn = method.canvas(torch.zeros(2, 3, side, side), photographs)()
    assert torch.equal(drawn, photographs[0].expand(2, -1, -1, -1))
    try_parts(method, 3, side)


def test_the_configuration_needs_no_torch():
    """The command answers quickly because composing imports nothing heavy."""
    import subprocess
    import sys

    script = "import sys, mindseye.commands.composing as c; c.compose(['k=3']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert OmegaConf.is_config(compose([]))
