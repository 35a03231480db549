"""What other programs of Lightning and Hydra call their settings and options, and which of ours does it."""

import os
import re
from collections.abc import Mapping, Sequence

from mindseye.settings import NAMED
from mindseye.visualizer.onlookers import of_lightning, why_not
from mindseye.words import did_you_mean, nearest

STEPS = "steps=N says how many steps are taken"
RATE = "the learning rate is 'schedule.lr=[START,END]'"
SMOKE = "experiment=smoke tries everything in seconds"
GO_ON = (
    "a run that was interrupted goes on by hydra.run.dir=ITS_FOLDER; a network's weights are network.weights=FILE, "
    "or network=checkpoint network.path=FILE"
)
ROOT = "the photographs are images.root=FOLDER"
FOLDER = "hydra.run.dir=FOLDER says where a run goes, hydra.sweep.dir=FOLDER where a sweep"
NETWORK = "network=NAME, or network=callable network.target=my_net.py:build for your own"
SHARED = "there are no gradients to be gathered: trainer.devices=N shares the facets out among N devices of one machine"
SWEPT = "a run is on one machine; a sweep is on many: hydra/launcher=slurm or ray"
FRAMES = "every step sees all facets: there are no batches to be left out"
NO_VALIDATION = "nothing is validated: measures are taken of the finished pictures"
MANUAL = "gradients are of pictures, and are taken as they are; schedule.lr is what makes steps smaller"

# What Lightning's Trainer takes besides our own fields of `trainer`, and why it is no setting here.
TRAINER: Mapping[str, str] = {
    "strategy": SHARED,
    "num_nodes": SWEPT,
    "precision": "precision=float32, tf32, bfloat16 or float16 says in which the network computes",
    "logger": "logger=wandb, tensorboard, csv, or several: logger=[wandb,csv]",
    "callbacks": "callbacks=NAME takes one or several; +callbacks.mine._target_=my.module.Class one of your own",
    "fast_dev_run": SMOKE,
    "max_epochs": STEPS,
    "min_epochs": STEPS,
    "max_steps": STEPS,
    "min_steps": STEPS,
    "max_time": f"{STEPS}; a run that is told to stop (SIGTERM) saves its state and goes on later",
    "limit_train_batches": FRAMES,
    "limit_val_batches": NO_VALIDATION,
    "limit_test_batches": NO_VALIDATION,
    "limit_predict_batches": NO_VALIDATION,
    "overfit_batches": FRAMES,
    "val_check_interval": NO_VALIDATION,
    "check_val_every_n_epoch": NO_VALIDATION,
    "num_sanity_val_steps": NO_VALIDATION,
    "log_every_n_steps": "trackers are told every tenth step, and history.parquet has each",
    "enable_checkpointing": "checkpoint=SECONDS says how often a run's state is saved",
    "enable_progress_bar": "-q draws none, and no bar is drawn where the output is no terminal",
    "enable_model_summary": "callbacks=model_summary writes one; mindseye layers network=NAME is a table of the layers",
    "accumulate_grad_batches": "facets_per_batch=N computes N facets at once, with the same pictures",
    "gradient_clip_val": MANUAL,
    "gradient_clip_algorithm": MANUAL,
    "deterministic": "on a CPU every run is; of a GPU's random views the gradient has no deterministic form",
    "inference_mode": NO_VALIDATION,
    "use_distributed_sampler": SHARED,
    "barebones": "callbacks and trackers are off as it is",
    "plugins": "precision, trainer.devices and checkpoint have what it would bring",
    "sync_batchnorm": "the network is frozen",
    "reload_dataloaders_every_n_epochs": FRAMES,
    "default_root_dir": FOLDER,
    "enable_autolog_hparams": "trackers always get the whole configuration",
    "model_registry": "nothing is trained that could be registered",
}
# By the last part of a key: other programs' names, and what does it here.
_NAMES: Mapping[str, str] = {
    "epochs num_epochs n_epochs num_steps n_steps iterations iters max_iter n_iter max_epochs max_steps": STEPS,
    "lr learning_rate base_lr init_lr lr_init": RATE,
    "lr_scheduler scheduler": "schedule=constant, or a list for each value: 'schedule.lr=[START,END]'",
    "seed_everything random_seed manual_seed random_state rng_seed": "seed=N",
    "ckpt_path resume_from_checkpoint resume ckpt checkpoint_path resume_from": GO_ON,
    "fast_dev_run dry_run debug smoke smoke_test test_run": SMOKE,
    "pretrained use_pretrained": "network.weights=DEFAULT has the published weights, null random ones",
    "model arch architecture backbone net encoder": NETWORK,
    "data data_dir data_root dataset dataset_dir datamodule image_dir img_dir data_path": ROOT,
    "img_size image_size input_size resolution": "images.size=PIXELS",
    "num_workers n_workers": "facets.workers=N processes read photographs",
    "batch_size bs": "facets.batch_size=N photographs are looked at at once, facets_per_batch=N facets drawn at once",
    "n_clusters num_clusters num_facets n_facets": "C=N is the number of facets",
    "n_components": "facets.components=N of the PCA",
    "topk top_k num_channels n_channels": "k=N is how many channels count",
    "device gpus gpu cuda tpu_cores accelerator": "trainer.accelerator=gpu, trainer.devices=N",
    "strategy ddp": SHARED,
    "output_dir out_dir outdir log_dir results_dir work_dir save_dir output": FOLDER,
    "profiler detect_anomaly benchmark": "it is a setting of trainer: trainer.profiler=simple",
    "amp fp16 bf16 use_amp mixed_precision half": TRAINER["precision"],
    "n_trials sampler hparams_search": "hydra/sweeper=optuna searches, see docs/command-line.md",
    "loss criterion loss_fn": "objective=NAME, and its weights: objective.dm, .ad, .tv",
    "callback model_checkpoint early_stopping": TRAINER["callbacks"],
    "n_jobs jobs": "hydra/launcher=joblib hydra.launcher.n_jobs=N runs cells side by side",
    "layers": "layer=NAME is one; layer=NAME,NAME with -m draws several",
    "verbose": "-v says more",
    "weight_decay": "+optimizer.weight_decay=N, of the canvas",
    "momentum nesterov": "optimizer=sgd optimizer.momentum=N; of Adam it is the first of optimizer.betas",
    "run_name exp_name experiment_name": "logger.wandb.name=NAME is its name in wandb, hydra.run.dir=FOLDER its place",
    "num_classes n_classes classes": "network.num_classes=N, of network=torchvision and network=timm",
    "in_channels in_chans n_channels_in": "a network takes as many channels as network.mean has numbers",
    "patience early_stop early_stopping_patience": STEPS,
    "use_wandb wandb_mode": "logger=wandb, and logger.wandb.offline=false online",
}
_MEANT = {name: meaning for names, meaning in _NAMES.items() for name in names.split()}
# What may as well be a slip within a group of ours: meant so only where it stands alone.
_ALONE = (
    "loss", "layers", "verbose", "debug", "save_dir", "data", "model", "net", "resume", "output", "half",
    "weight_decay", "momentum", "nesterov", "num_classes", "classes",
)  # fmt: skip
_SLIP = 0.8  # how like another program's name a word must be to be a slip of it
# What Hydra's own further parts are installed by.
PLUGINS = {
    "hydra/sweeper": {
        "optuna": "'mindseye[search]'", "ax": "hydra-ax-sweeper", "nevergrad": "hydra-nevergrad-sweeper",
    },
    "hydra/launcher": {"submitit_slurm": "'mindseye[slurm]'", "submitit_local": "'mindseye[slurm]'",
                       "rq": "hydra-rq-launcher"},
    "hydra/job_logging": {"colorlog": "hydra-colorlog"},
    "hydra/hydra_logging": {"colorlog": "hydra-colorlog"},
}  # fmt: skip
# What a group takes besides its files; {name} is what was asked for.
FURTHER = {
    "network": "; others of torchvision's by network=torchvision network.name={name}, of timm's by network=timm "
    "network.name={name}",
    "transfer": "; others of torchvision's by transfer=torchvision transfer.torchvision.name={name}, of timm's by "
    "transfer=timm transfer.timm.name={name}",
    "logger": ", and any of Lightning's by a file of your own (docs/wandb.md)",
    "callbacks": ", and others of Lightning's by +callbacks.mine._target_=my.module.Class",
    "filters": ", and your own by +filters.mine._target_=my.module.Class",
    "schedule": ", and a list for each value: 'schedule.lr=[START,END]'",
    **{
        group: f", and your own by {group}._target_=my.module.Class"
        for group in ("objective", "canvas", "optimizer", "transformations")
    },
}
# torch's optimisers that take what conf/optimizer/calibrated.yaml gives, and those that need a file of their own.
_ADAMS = {"adamw": "AdamW", "adamax": "Adamax", "nadam": "NAdam", "radam": "RAdam"}
_OPTIMIZERS = {
    "rmsprop": "RMSprop", "adagrad": "Adagrad", "adadelta": "Adadelta", "asgd": "ASGD", "rprop": "Rprop",
}  # fmt: skip
_TRACKERS = ("wandb", "tensorboard", "csv")
_TRACKER_SETTINGS = (
    "project", "entity", "group", "tags", "offline", "notes", "job_type", "name", "save_dir", "settings", "resume",
    "version",
)  # fmt: skip


def led_to(key: str) -> str | None:
    """What does here what a key does in other programs, None for one that nobody else knows either.

    >>> led_to("lr"), led_to("optimizer.learning_rate") == led_to("lr"), led_to("kk")
    ("the learning rate is 'schedule.lr=[START,END]'", True, None)
    >>> led_to("wandb.project")
    'logger=wandb and logger.wandb.project'
    """
    place, _, last = key.rpartition(".")
    if place == "trainer" and last in TRAINER:
        return TRAINER[last]
    if place == "hydra.sweeper" and last in ("study_name", "storage", "n_trials", "direction", "sampler"):
        return "hydra/sweeper=optuna takes it"
    if match := re.fullmatch(r"(?:logger\.)?(wandb|tensorboard|csv|mlflow|comet|neptune|aim)(?:\.([^.]+))?", key):
        name, inner = match[1], match[2] or "NAME"
        if name in _TRACKERS and inner not in (*_TRACKER_SETTINGS, "NAME"):
            near = nearest(inner, _TRACKER_SETTINGS, most=1)
            meant = f"did you mean logger.{name}.{near[0]}? " if near else ""
            return f"{meant}+logger.{name}.{inner}=… adds what its class takes"
        return f"logger={name} and logger.{name}.{inner}" if name in _TRACKERS else "another tracker: docs/wandb.md"
    if re.fullmatch(r"(?:logger\.)?(project|entity|group|tags|offline|notes|job_type)", key):
        return f"logger=wandb and logger.wandb.{last}"
    if place.partition(".")[0] in ("filters", "callbacks", "metrics"):  # of a class of somebody's own
        return None
    if place not in ("", "trainer", "hydra") and last in _ALONE:
        return None
    meaning = _MEANT.get(last)
    return meaning.replace("network.", f"{place}.") if meaning and place.startswith("transfer.") else meaning


def no_such_setting(
    key: str, known: Sequence[str], otherwise: str = "", options: Sequence[str] = ()
) -> str:
    """One line for a key that is no setting: what does it here, else the nearest of the known keys, else `otherwise`.

    options: those of its group whose files have it.
    """
    group, last = key.partition(".")[0], key.rpartition(".")[2]
    message = f"{key}: there is no such setting"
    if led := led_to(key):
        return f"{message}: {led}"
    if options:
        have_it = " or ".join(f"{group}={option}" for option in options)
        return f"{message} of the {group} that is chosen, but of {have_it}"
    others = TRAINER if group == "trainer" else _MEANT
    ours = {name.rpartition(".")[2] for name in known}
    [*slip] = nearest(last, {*others, *ours}, most=1, likeness=_SLIP)
    if slip and slip[0] not in ours:
        return f"{message}; as for {slip[0]}: {others[slip[0]]}"
    return f"{message}{did_you_mean(key, known) or otherwise}"


def no_such_part(key: str, names: Sequence[str]) -> str:
    """One line for a setting of a part that is not there, filters.blur.every without filters=blur.

    names: what its group's files are called.

    >>> no_such_part("filters.blur.every", ["blur", "mask"])
    'filters.blur.every: there is no filters.blur yet: filters=blur first, or filters=[…,blur]'
    """
    group, name, *_ = key.split(".")
    message = f"{key}: there is no {group}.{name} yet"
    if group == "callbacks" and (kinds := of_lightning(name)):
        return f"{message}: {kinds[0]} {why_not(kinds, told=True)}"
    if name in names:
        return f"{message}: {group}={name} first, or {group}=[…,{name}]"
    if group == "transfer":
        return f"{message}: transfer=NAME first{did_you_mean(name, names)}"
    return f"{message}: +{group}.{name}._target_=my.module.{'function' if group == 'metrics' else 'Class'} first"


def no_such_option(group: str, name: str, names: Sequence[str], *, several: bool = False) -> str:
    """One line for an option that its group has not: what does it here, else the nearest of the names.

    several: whether it is one of a list, logger=[csv,foo].

    >>> no_such_option("images", "dem", ["demo", "folder"])
    'images=dem: there is no such images; did you mean demo?; there are demo, folder'
    """
    if (meant := option_meant(group, name)) is not None:
        return meant
    message = f"{group}: there is no {name}" if several else f"{group}={name}: there is no such {group}"
    further = FURTHER.get(group, "").format(name=name)
    return f"{message}{did_you_mean(name, names)}; there are {', '.join(names)}{further}"


def option_meant(group: str, name: str) -> str | None:
    """One line for a group's option that other programs have, or that is a value of one of its settings; else None."""
    setting = f"{group}={name}"
    if group in ("network", "transfer"):
        return _network_meant(group, name)
    if group == "images" and (os.path.isdir(os.path.expanduser(name)) or re.search(r"[/~]", name)):
        return f"{setting}: give images.root={name}, the folder of the photographs"
    if group == "trainer":
        return f"{setting}: trainer.accelerator=gpu, cpu or auto and trainer.devices=N say where it is computed"
    if group in PLUGINS and name in PLUGINS[group]:
        loses = "; run.log is written by hydra/job_logging=mindseye alone" if group == "hydra/job_logging" else ""
        return f"{setting} needs a package that is not installed: pip install {PLUGINS[group][name]}{loses}"
    if group == "callbacks" and (kinds := of_lightning(name.rpartition(".")[2])):
        return f"{setting}: {kinds[0]} {why_not(kinds, told=True)}"
    if group == "optimizer" and (known := {**_ADAMS, **_OPTIMIZERS}.get(name.lower())):
        target = f"torch.optim.{known}"
        if known in _ADAMS.values():
            return f"{setting}: give optimizer._target_={target}"
        return f"{setting}: {a_file_of_its_own('optimizer', target, partial=True)}"
    if re.search(r"[.:]", name):
        node = f"+{group}.mine" if group in NAMED else group
        return f"{setting}: give a class of your own as {node}._target_={name}"
    return None


def _network_meant(group: str, name: str) -> str | None:
    setting, node = f"{group}={name}", "network" if group == "network" else "transfer.{}"
    if re.search(r"\.(ckpt|pt|pth|bin|safetensors)$", name):
        place = node.format("checkpoint")
        return f"{setting}: give weights as {group}=checkpoint {place}.path={name} {place}.target=ARCHITECTURE"
    if match := re.fullmatch(r"(?:hf[-_]hub:)?(timm|torchvision)(?:\.models)?[/.:](.+)", name):
        of, model = match.groups()
        model = model if of == "timm" else re.split("[./:]", model)[-1]  # timm's have tags behind a dot
        return f"{setting}: give {group}={of} {node.format(of)}.name={model}"
    if not re.search(r"[.:/]", name):
        return None
    function = f"{name}:FUNCTION" if name.endswith(".py") else name
    if ":" not in function and "/" in function:
        function = "my_net.py:FUNCTION"  # of a hub, say
    return f"{setting}: give a network of your own as {group}=callable {node.format('callable')}.target={function}"


def a_file_of_its_own(group: str, target: str, *, partial: bool) -> str:
    """What to write where a class takes other settings than its group's file has.

    >>> a_file_of_its_own("objective", "mine.Mean", partial=False)
    'write my_conf/objective/NAME.yaml with `_target_: mine.Mean`, and give --config-dir my_conf objective=NAME'
    """
    also = " and `_partial_: true`" if partial else ""
    return (
        f"write my_conf/{group}/NAME.yaml with `_target_: {target}`{also}, and give --config-dir my_conf {group}=NAME"
    )
