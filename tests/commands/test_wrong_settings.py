"""Whatever is wrong in a command is said in one line before a network is loaded, never by a traceback."""

import json
import os
import random

import pytest
import warm
import wrong_words
import yaml

from mindseye.commands.checking import check, check_overrides
from mindseye.commands.composing import ConfigurationError, compose, config_folder
from mindseye.commands.constructors import check_constructors
from mindseye.commands.parts import make_method, make_metrics, try_parts
from mindseye.fields import annotation_of, described
from mindseye.settings import plain_settings


def said_of(words):
    """What check_overrides says, None where it has nothing to say; anything but its own error goes through."""
    message = None
    try:
        check_overrides(words)
    except ConfigurationError as error:
        message = str(error)
    assert message is None or (message.strip() and "\n" not in message)
    return message


def refuse_all(words):
    """(how many are refused, how many pass)"""
    refused = sum(said_of(word) is not None for word in words)
    return refused, len(words) - refused


def test_a_hundred_wrong_settings_are_one_line_each():
    refused, passed = refuse_all([[word] for word in wrong_words.wrong_words(100, seed=1)])
    assert refused > 60
    assert passed > 0  # some of what is odd is right


@pytest.mark.parametrize("words", [["C=${hydra:run.dir}"], ["-m", "objective.dm=1,range(3,1)"]], ids=str)
def test_what_the_many_found_stays_mended(words):
    refuse_all([words])


@pytest.mark.long
def test_five_hundred_wrong_settings_alone_and_in_pairs_are_one_line_each():
    words = wrong_words.wrong_words(500, seed=2)
    refused, _ = refuse_all([[word] for word in words])
    assert refused > 300
    refuse_all([[words[i], words[-i]] for i in range(1, 100)])
    refuse_all([["-m", f"{key}={value},{other}"] for key, value, other in swept(60)])


def swept(count):
    draw = random.Random(3)
    for _ in range(count):
        key, _, value = draw.choice(wrong_words.RIGHT).partition("=")
        yield key, value, draw.choice(wrong_words.VALUES)


# ---- numbers out of range ------------------------------------------------------------------------------------------

NEEDS = {
    "network=torchvision": ["network.name=resnet18"],
    "network=timm": ["network.name=resnet18"],
    "network=callable": ["network.target=a.b", "network.mean=[0]", "network.std=[1]"],
    "network=checkpoint": ["network.path=x.ckpt", "network.target=resnet18"],
    "images=folder": ["images.root=somewhere"],
}
WRONG = {  # what is wrong where -1 would be right, or is no value at all
    "mean": "[0.5,x,0.5]",
    "std": "[0.5,0,0.5]",
    "betas": "[0.0,1.0]",
    "seed": str(2**32),
    "b": "2",
    "perplexity": "0",
    "levels": "1",
    "max_depth": "-2",  # -1: all
    "C": "161",  # more than images.count
    "limit_gb": "1e300",
}
NULL_BY_DEFAULT = (
    ("network=torchvision", "network.num_classes"), ("network=torchvision", "network.size"),
    ("network=torchvision", "network.std"), ("network=timm", "network.size"),
    ("filters=published", "filters.tv.iterations"), ("filters=published", "filters.tv.tolerance"),
)  # fmt: skip


def numbers(node, place):
    """Dotted keys of a YAML file's numbers, and of its lists of numbers."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{place}.{key}" if place else key)
        elif key != "defaults" and all(is_number(number) for number in (value if isinstance(value, list) else [value])):
            yield f"{place}.{key}" if place else key


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def numeric_settings():
    """(option, key) of every number that stands in conf/, each key once."""
    options = {key: option for option, key in NULL_BY_DEFAULT}
    plain = {key: described(annotation_of(field)) for key, field in plain_settings().items()}
    options |= {key: "trainer=default" for key, words in plain.items() if "number" in words}
    for file in sorted(config_folder().rglob("*.yaml")):
        place = file.relative_to(config_folder())
        if place.parts[0] in ("hydra", "experiment", "ablation", "length", "transfer"):
            continue
        group = place.parts[0] if len(place.parts) > 1 else ""
        option = f"{group}={file.stem}" if group else "trainer=default"
        for key in numbers(yaml.safe_load(file.read_text()) or {}, group):
            if not key.startswith("hydra."):
                options.setdefault(key, option)
    return sorted((option, key) for key, option in options.items())


def test_the_numbers_are_found():
    keys = {key for _, key in numeric_settings()}
    assert keys >= {"k", "seed", "objective.gain", "schedule.lr", "canvas.cycles", "optimizer.betas",
                    "optimizer.momentum", "filters.brighten.amount", "cache.limit_gb", "network.std",
                    "logger.wandb.settings.init_timeout", "transformations.rotation"}  # fmt: skip
    assert len(keys) >= 60


def check_and_make(config):
    run = check(config)
    check_constructors(run.parts)
    try_parts(make_method(run), 3, 8)
    make_metrics(run)


@pytest.mark.parametrize(("option", "key"), numeric_settings(), ids=str)
def test_no_number_out_of_range_reaches_the_network(option, key):
    """Its group's settings are checked, and its parts made, before the network is."""
    name = key.split(".")[-1]
    value = "[-1,0]" if key.startswith("schedule.") else WRONG.get(name, "-1")
    given = option.split("=")[0]
    needs = [word for word in NEEDS.get(option, []) if not word.startswith(f"{key}=")]
    words = [*([option] if given != "trainer" else []), *needs, f"{key}={value}"]
    with pytest.raises(ConfigurationError) as caught:
        check_and_make(compose(words))
    message = str(caught.value)
    assert name in message or name == "betas", message  # torch says "beta parameter"
    assert "\n" not in message


# ---- the command ----------------------------------------------------------------------------------------------------

NONSENSE = [
    ["hydra.run.dir="], ["hydra.run.dir=${nope}"], ["hydra.run.dir=/proc/nowhere"],
    ["hydra/launcher=nope"], ["hydra/sweeper=nope"], ["hydra.mode=nope"], ["hydra.verbose={"],
    ["hydra.job_logging=3"], ["hydra.job_logging.handlers.file.class=nope"], ["hydra.output_subdir=[1]"],
    ["hydra.callbacks.mine._target_=no.such.Thing"], ["hydra.nope=3"], ["hydra.sweeper=null"],
    ["-m", "hydra.sweep.dir="], ["-m", "hydra.sweeper.params=3"], ["-m", "hydra.sweeper.params=[a]"],
    ["-m", "hydra.launcher=null"], ["-m", "hydra.launcher._target_=no.such.Thing"],
    ["-m", "hydra.sweeper.max_batch_size=0", "k=4,8"], ["-m", "hydra.sweeper.cells=nope", "k=4,8"],
    ["-m", "k=interval(1,5)"], ["-m", "k=range(1,9,0)"], ["-m", "k=shuffle(range(1,1000000000))"],
    ["-m", "k=range(5,1)"], ["-m", "k=glob(*)"], ["-m", "k=1,2,x"], ["-m", "seed=range(0,1000)", "k=range(1,1000)"],
    ["k=4,8"], ["k=${nope}"], ["k=${k}"], ["images.root=${oc.env:NOPE}"], ["images.root=~nobody-of-this-name/x"],
    ["objective.gain=${objective.gain}"], ["schedule.lr=3"], ["filters.blur=3"], ["objective._target_=no.such.Thing"],
    ["objective._target_=null"], ["canvas._target_=os"], ["optimizer._target_=torch.nn.Linear"], ["++images=3"],
    ["++transfer=3"], ["++logger.csv=3"],
    ["--multirun", "--cfg"], ["--multirun", "--cfg", "job"], ["--cfg", "nope"], ["--resolve"], ["--nope"], ["-k=3"],
    ["--cfg", "job", "--resolve", "k=${nope}"], ["--cfg", "job", "kk=3"], ["--info", "defaults", "network=nope"],
    ["--config-name"], ["--config-name", "nope"], ["-cn", "nope"], ["-cp", "/nowhere"], ["--config-dir", "/nowhere"],
    ["--experimental-rerun", "job.pickle"], ["--from"], ["--from", "/nowhere"], ["--from=", "k=3"],
    ["layers", "kk=3"], ["layers", "network=nope"], ["layers", "network=callable"], ["layers", "network.size=x"],
    ["cache", "k=3"], ["cache", "cache.limit_gb=-1"], ["cache", "clear", "cache.folder="], ["sweep"],
    ["sweep", "status", "/nowhere"], ["sweep", "resume", "/nowhere"], ["gallery", "/nowhere"], ["gallery"],
    ["figures", "/nowhere"], ["report", "/nowhere"], ["report", "/nowhere", "--by"], [""], ["="], ["k"], ["k=", "C="],
]  # fmt: skip
VERBS = ("layers", "cache", "sweep", "gallery", "figures", "report")

PROGRAM = """
import contextlib, io, json, sys, traceback
from mindseye.commands.main import main
answers = []
for words in json.loads(sys.argv[1]):
    code, said = 0, io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
    answers.append([words, code, said.getvalue()])
print(json.dumps(answers))
"""


def answers_of(commands, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    environment.pop("NOPE", None)
    done = warm.python("-c", PROGRAM, json.dumps(commands), cwd=cwd, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_one_line(words, code, said):
    assert "Traceback" not in said, (words, said)
    assert code in (1, 2), (words, code, said)
    if code == 1:  # 2: flags, of which argparse says how they are used
        lines = said.strip().splitlines()
        assert len(lines) == 1, (words, said)
        assert lines[0].startswith("mindseye: "), (words, said)
        assert len(lines[0]) > 20, (words, said)


def test_nonsense_on_the_command_line_is_one_line(tmp_path):
    assert_refused(NONSENSE[::4], tmp_path)


@pytest.mark.long
def test_all_the_nonsense_on_the_command_line_is_one_line(tmp_path):
    assert_refused(NONSENSE, tmp_path)


def assert_refused(commands, tmp_path):
    commands = [words if words and words[0] in VERBS else [*words, "experiment=smoke"] for words in commands]
    for answer in answers_of(commands, tmp_path):
        assert_one_line(*answer)
    assert not list(tmp_path.rglob("metrics.json"))


FILES = {
    "loop": "# @package _global_\nimages: &a\n  root: *a\n",
    "list": "- 1\n- 2\n",
    "text": "just words\n",
    "broken": "k: [1, 2\n",
    "binary": "\x00\x01\x02",
    "itself": "defaults: [itself]\n",
    "nothing_there": "defaults: [/network: nope]\n",
    "keys": "# @package _global_\nkk: 3\n",
    "object": "# @package _global_\nk: !!python/object/apply:os.system ['touch ran']\n",
    "refers": "# @package _global_\nk: ${snapshots}\nsnapshots: ${k}\n",
}


SMALL = ("steps=1", "images.count=24", "images.size=48", "C=2")  # should one be taken for right


def test_nonsense_in_one_s_own_files_is_one_line(tmp_path):
    for name, content in FILES.items():
        (tmp_path / f"mine-{name}/experiment").mkdir(parents=True)
        (tmp_path / f"mine-{name}/experiment/{name}.yaml").write_text(content)
    for words, code, message in answers_of(
        [["--config-dir", f"mine-{name}", f"experiment={name}", *SMALL] for name in FILES], tmp_path
    ):
        assert_one_line(words, code, message)
    assert not (tmp_path / "ran").exists()


@pytest.mark.long
def test_forty_wrong_settings_by_the_real_command(tmp_path):
    words = [word for word in wrong_words.wrong_words(120, seed=5) if said_of([word]) and not word.startswith("-")]
    assert len(words) >= 40
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    for word in words[:40]:
        done = warm.python("-m", "mindseye.commands.main", word, cwd=tmp_path, env=environment, timeout=60)
        assert_one_line([word], done.returncode, done.stderr)
    assert not list(tmp_path.iterdir())
