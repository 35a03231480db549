"""Small real things that many tests share: drawn photographs, the packaged demo network, facets found with them."""

import os
import signal
import warnings

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch

from mindseye.demo.photographs import write_photographs
from mindseye.facets import FacetTargets, Photographs, discover_facets, load_photographs
from mindseye.networks import Network, demo_network
from mindseye.settings import Facets

warnings.filterwarnings("ignore", module="pytorch_lightning")
# A shell starts what it puts into the background with Ctrl-C ignored, and so would be all that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Two in all, however many processes share the tests out.
torch.set_num_threads(max(1, 2 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory):
    """The suite, and the commands it starts, never touch the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDSEYE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photograph_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, "padlock", 24, seed=3)
    return folder


@pytest.fixture(scope="session")
def photographs(photograph_folder) -> Photographs:
    return load_photographs(photograph_folder, size=48)


@pytest.fixture(scope="session")
def network() -> Network:
    return demo_network()


@pytest.fixture(scope="session")
def targets(network, photographs) -> FacetTargets:
    return discover_facets(network, photographs, network.resolve(depth="middle"), Facets(C=3, k=8, N=4))


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Writes a run folder as a run leaves it, without drawing anything: `make_run(folder, facets=2, …)`.

    All runs share a few tiny pictures, so that hundreds of them cost nothing.
    """
    import io
    import json
    import os

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from mindseye.results.run_status import RunStatus, write_status

    store = tmp_path_factory.mktemp("pictures")
    for name, colour in (("visualization", "teal"), ("initial", "grey"), ("nearest", "brown")):
        Image.new("RGB", (8, 8), colour).save(store / f"{name}.png")
    Image.new("RGB", (8, 8), "olive").save(store / "step.webp")

    def make(folder, *, facets=2, steps=(10, 20), cosine=0.5, overrides=(), config="k: 10\n", photographs=("a.png",)):
        terms = {"dm": 0.9, "total": -5.0, "schedule_lr": 0.1}
        for c in range(facets):
            place = folder / "facets" / f"{c:02d}"
            (place / "steps").mkdir(parents=True)
            (place / "photographs").mkdir()
            for n in range(len(photographs)):
                os.link(store / "step.webp", place / "photographs" / f"{n:02d}.webp")
            for name in ("visualization", "initial", "nearest"):
                os.link(store / f"{name}.png", place / f"{name}.png")
            for step in steps:
                os.link(store / "step.webp", place / "steps" / f"{step:04d}.webp")
            named = [{"path": name, "weight": 1 / (n + 1), "distance": n} for n, name in enumerate(photographs)]
            (place / "photographs.json").write_text(json.dumps(named))
        rows = [(t, c) for t in range(1, 21) for c in range(facets)]
        table = {"step": [t for t, _ in rows], "facet": [c for _, c in rows]}
        table |= {name: [value / t for t, _ in rows] for name, value in terms.items()}
        stored = io.BytesIO()
        pq.write_table(pa.table(table), stored)
        (folder / "history.parquet").write_bytes(stored.getvalue())
        (folder / "config.yaml").write_text(config)
        figures = [
            {
                "facet": c,
                "fidelity": {"cosine": cosine + c / 100, "magnitude": None},
                "naturalness": {"tv": 1.5},
                "baselines": {"initial": {"fidelity": {"cosine": 0.1}}},
            }
            for c in range(facets)
        ]
        (folder / "metrics.json").write_text(json.dumps({"facets": figures}))
        write_status(folder, RunStatus(status="completed", overrides=tuple(overrides), seconds=3.0))
        return folder

    return make


@pytest.fixture(scope="session")
def keep_facets():
    """Gives a run of `make_run` the targets/ that its facets would have: `keep_facets(run, labels, channels=…)`.

    labels: each photograph's facet; the photographs are called p00.png, p01.png, … unless `names` says otherwise. The
    nearest two of each facet are blended, with weights 0.75 and 0.25.
    """
    import json

    def keep(run, labels, *, channels=None, names=None, layer="late", D=8, content=""):
        labels = torch.tensor(labels)
        C, M = int(labels.max()) + 1, len(labels)
        names = [f"p{i:02d}.png" for i in range(M)] if names is None else names
        turn = torch.arange(M) * 2.4
        centres = torch.stack([torch.cos(torch.arange(C) * 2.0), torch.sin(torch.arange(C) * 2.0)], dim=1) * 10
        embedding = centres[labels] + torch.stack([turn.cos(), turn.sin()], dim=1) * (1 + torch.arange(M) / M)[:, None]
        chosen = torch.stack([(labels == c).nonzero().flatten()[[0, -1]] for c in range(C)])
        weights = torch.tensor([[0.75, 0.25]]).repeat(C, 1)
        channels = torch.arange(2).repeat(C, 1) if channels is None else torch.tensor(channels)
        FacetTargets(
            layer=layer, root="photographs", paths=tuple(names), skipped=(), initial=torch.zeros(C, 3, 2, 2),
            maps=torch.zeros(C, D, 1, 1), power=torch.zeros(C, D), channels=channels, weights=weights, chosen=chosen,
            distances=torch.ones(C, 2), photographs=torch.zeros(C, 2, 3, 2, 2, dtype=torch.uint8),
            embedding=embedding, labels=labels, centres=centres, mean_activation=torch.zeros(D),
            content=content,
        ).save(run / "targets")  # fmt: skip
        for c in range(C):
            lines = [
                {"path": names[i], "weight": w, "distance": 1.0}
                for i, w in zip(chosen[c].tolist(), weights[c].tolist(), strict=True)
            ]
            (run / f"facets/{c:02d}/photographs.json").write_text(json.dumps(lines))
        return run

    return keep
