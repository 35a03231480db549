"""A search in place of a grid: Optuna through Hydra, whose studies are kept and gone on with."""

import os

import pytest
import warm

from mindseye.results.run_folder import read_run

SMALL = ["images.size=48", "images.count=24", "facets.N=4", "steps=2", "network=demo", "C=2", "k=8", "transfer=demo"]


@pytest.mark.slow
def test_a_study_is_kept_and_added_to(tmp_path):
    optuna = pytest.importorskip("optuna")
    words = ["-m", "experiment=search", *SMALL, "hydra.sweeper.n_trials=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def search(*more):
        return warm.python("-m", "mindseye.commands.main", *words, *more, cwd=tmp_path, env=environment, timeout=240)

    done = search()
    assert done.returncode == 1
    assert "hydra.sweeper.study_name: there is no such setting: hydra/sweeper=optuna takes it" in done.stderr
    for trials in (2, 4):
        done = search("hydra/sweeper=optuna")
        assert done.returncode == 0, done.stderr
        study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/search.db")
        assert len(study.trials) == trials
    runs = [read_run(file.parent) for file in (tmp_path / "search").rglob("metrics.json")]
    judged = {run.metrics["summary"]["transfer"]["cosine"] for run in runs}
    assert {trial.value for trial in study.trials} == judged
    assert study.best_value == max(judged)
