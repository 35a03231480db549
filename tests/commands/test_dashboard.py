"""The wandb workspace: what `--json` prints is what a server is sent, and has what docs/wandb.md promises."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from mindseye.commands.main import main
from mindseye.reports import dashboard
from mindseye.results.measures import MEASURES
from mindseye.sweeps.manifest import add_cells
from mindseye.visualizer import tracking
from mindseye.visualizer.terms import LossTerms

workspaces = pytest.importorskip("wandb_workspaces.workspaces")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "my_sweep"
    values = [(k, name, seed) for k in (10, 50) for name in ("calibrated", "released") for seed in (0, 1)]
    add_cells(folder, [(f"k={k}", f"objective={name}", f"seed={seed}", "steps=9") for k, name, seed in values], [], "")
    return folder


def printed(capsys, *words):
    main(["dashboard", *words, "--json"])
    return json.loads(capsys.readouterr().out)


def panels(view, section):
    [bank] = [bank for bank in view["spec"]["section"]["panelBankConfig"]["sections"] if bank["name"] == section]
    return bank["panels"]


def test_runs_are_those_of_the_sweep_grouped_by_what_it_sweeps(sweep, capsys):
    view = printed(capsys, "me/project", "--sweep", str(sweep))
    assert (view["entity"], view["project"]) == ("me", "project")
    [runs] = view["spec"]["section"]["runSets"]
    # A group of the configuration by its file, the seed not at all: that is what a mean is over.
    assert [key["name"] for key in runs["grouping"]] == ["k.value", "choices.value.objective"]
    assert f"{sweep.parent.name}/{sweep.name}" in json.dumps(runs["filters"])
    [runs] = printed(capsys, "me/project", "--by", "objective.gain")["spec"]["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["objective.value.gain"]
    [runs] = printed(capsys, "me/project")["spec"]["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group"]


def test_every_panel_that_was_promised_is_there(capsys):
    view = printed(capsys, "me/project")
    pictures = [panel["config"] for panel in panels(view, "Pictures")]
    assert {key for picture in pictures for key in picture["mediaKeys"]} == {"visualization", "facets", "map"}
    assert pictures[0]["gridSettings"] == {"xAxis": "step", "yAxis": "run"}
    assert view["spec"]["section"]["settings"]["xAxis"] == tracking.AXIS
    bars = [panel["config"] for panel in panels(view, "Measures")]
    assert {"metrics/transfer.gain", "metrics/fidelity.cosine"} <= {bar["metrics"][0] for bar in bars}
    assert {(bar["groupAgg"], bar["groupArea"]) for bar in bars} == {("mean", "stderr")}
    assert "facets_table" in json.dumps(panels(view, "Facets"))
    curves = [panel["config"] for panel in panels(view, "Curves")]
    assert [curve["metricRegex"] for curve in curves if "metricRegex" in curve] == ["gradient/.*"]
    assert {curve["xAxis"] for curve in curves} == {tracking.AXIS}


def test_its_names_are_those_that_trackers_are_told():
    parts = {name: "distance" if name in tracking.DISTANCE else "loss" for name in (*LossTerms.names(), "r", "b")}
    assert set(dashboard.CURVES) == {f"{part}/{name}" for name, part in parts.items()}
    assert dashboard.AXIS == tracking.AXIS
    assert set(dashboard.MEASURES) <= set(MEASURES)


def test_what_is_printed_reads_back_as_the_same_workspace(capsys):
    from wandb_workspaces.workspaces.internal import View

    view = printed(capsys, "me/project", "--name", "Ours")
    again = workspaces.Workspace._from_model(View.model_validate(view))
    made = dashboard.workspace("me", "project")
    assert again.name == "Ours"
    assert [section.name for section in again.sections] == [section.name for section in made.sections]
    for one, other in zip(again.sections, made.sections, strict=True):
        assert [type(panel) for panel in one.panels] == [type(panel) for panel in other.panels]


class Server(http.server.ThreadingHTTPServer):
    """Answers as wandb's does: who asks, and that the view is saved; keeps what was saved."""

    def __init__(self):
        self.saved = []
        super().__init__(("127.0.0.1", 0), Answers)


class Answers(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body) if self.path == "/graphql" else {}
        if "upsertView" in asked.get("query", ""):
            self.server.saved.append(asked["variables"])
            data = {"upsertView": {"view": {"id": "V1", "name": asked["variables"]["name"]}, "inserted": True}}
        else:
            data = {"viewer": {"id": "1", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}}
        answer = json.dumps({"data": data}).encode() if asked else b""
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if asked else "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def server():
    started = Server()
    thread = threading.Thread(target=started.serve_forever)
    thread.start()
    yield started
    started.shutdown()
    thread.join()
    started.server_close()


@pytest.mark.slow
def test_it_is_saved_and_its_address_said(server, sweep, tmp_path):
    address = f"http://127.0.0.1:{server.server_port}"
    known = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", "mindseye", "dashboard", "me/project", "--sweep", str(sweep)],
        env={**kept, **known}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{address}/me/project\?nw=\w+", done.stdout.strip())
    [saved] = server.saved
    assert (saved["entityName"], saved["projectName"], saved["displayName"]) == ("me", "project", "mindseye")
    sections = json.loads(saved["spec"])["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["Pictures", "Measures", "Facets", "Curves", "Settings"]


def test_what_goes_wrong_costs_one_line(monkeypatch, capsys):
    def says(*words):
        with pytest.raises(SystemExit):
            main(["dashboard", *words])
        [line] = capsys.readouterr().err.splitlines()
        return line

    assert "ENTITY/PROJECT" in says("project")

    def refuse(self):
        raise RuntimeError("No API key\nconfigured")

    monkeypatch.setattr(workspaces.Workspace, "save", refuse)
    assert "was not saved (RuntimeError: No API key configured): wandb login" in says("me/project")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'mindseye[wandb]'" in says("me/project")
