"""The whole job in one call: draw the facets, measure them, keep everything together."""

import html
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mindseye
from mindseye.facets.clarity import clarity, redundancy
from mindseye.facets.firmness import KINDS_OF_DRAW
from mindseye.facets.pictures import html_table, inline_png
from mindseye.facets.targets import FacetTargets
from mindseye.networks.network import Network
from mindseye.networks.preparing import PreparedNetwork
from mindseye.provenance import git_commit, versions
from mindseye.results.judges import TransferReference, judge_features
from mindseye.results.likeness import broad_structure
from mindseye.results.measures import MEASURES, is_own, numbers
from mindseye.results.metrics import (
    Measuring,
    Metric,
    baselines,
    check_names,
    look_at_photographs,
    measure,
    rounded,
    row_of,
    summarise,
    with_gains,
)
from mindseye.results.pictures import contact_sheet, facet_labels
from mindseye.results.run_folder import write_run
from mindseye.results.where import Where, look_where
from mindseye.settings import Running
from mindseye.visualizer.fitting import Fit, check_asked, check_targets, fit, prepare_for
from mindseye.visualizer.method import Method
from mindseye.visualizer.watching import Watchers

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "scikit-learn", "openTSNE", "scikit-image", "kornia", "numpy",
    "pillow",
)  # fmt: skip


@dataclass(frozen=True)
class Visualization:
    """What a run gives: the pictures and everything known of them.

    The loss of every step is `fit.history`, a column each (a run read back by `read_run` has it as `history`), and the
    pictures on the way are `fit.snapshots`.
    """

    images: Tensor  # [C, ch, S, S] in 0..1, one a facet
    metrics: dict[str, Any]  # what metrics.json holds: facets, a row each; summary, their mean; baselines; provenance
    targets: FacetTargets  # what was drawn
    fit: Fit  # the optimisation: history, snapshots, seconds
    title: str  # network and layer, in one line
    # What each judge sees of the pictures (see `judge_features`), and the pixels (see `broad_structure`): by it a sweep
    # says whether a setting shows.
    features: Mapping[str, Tensor] = field(default_factory=dict)  # transfer.NAME [C, D], pixels [C, ch·32²]
    where: Where | None = None  # where each facet is in its photographs, and how strongly its pixels were pulled at

    def save(self, path: str | os.PathLike[str], config: str | None = None) -> Path:
        """Write the run folder `path`; metrics.json, last, makes it whole.

        `config` is its config.yaml, if there is one. An earlier run's result is replaced. Raises ValueError where the
        folder holds what is no run's, and OSError.
        """
        folder = Path(path).expanduser()
        write_run(folder, self, config)
        return folder

    @property
    def subtitle(self) -> str:
        """One line on what was asked of what."""
        return self.targets.subtitle

    def __repr__(self) -> str:
        """One line for a prompt, which would otherwise print every pixel."""
        cosine = self.metrics["summary"]["fidelity"]["cosine"]
        fidelity = "" if cosine is None else f" · fidelity.cosine {cosine:.3f}"
        return f"<Visualization of {self.title}: {self.subtitle}{fidelity}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the contact sheet, and the measures to look at first beside their baselines."""
        facets, summary, baselines = (self.metrics[part] for part in ("facets", "summary", "baselines"))
        sheet = contact_sheet(
            self.targets, self.images, facet_labels(self.targets, facets), title=self.title, subtitle=self.subtitle
        )
        named = [(str(row["facet"]), row) for row in facets]
        named += [("mean", summary), *baselines.items()]
        figures = [(name, dict(numbers(row))) for name, row in named]
        own = [name for name in dict(numbers(summary)) if is_own(name)]
        shown = [name for name, known in MEASURES.items() if known.notebook]
        columns = [name for name in (*shown, *own) if any(name in row for _, row in figures)]
        rows = [
            [html.escape(name), *(f"{row[column]:.3f}" if column in row else "" for column in columns)]
            for name, row in figures
        ]
        table = html_table(["facet", *map(html.escape, columns)], rows)
        heading = f"<p><b>{html.escape(self.title)}</b><br>{html.escape(self.subtitle)}</p>"
        return f"{heading}{inline_png(sheet, self.title)}{table}"


def visualize(
    network: Network | PreparedNetwork,
    targets: FacetTargets,
    method: Method = Method(),
    running: Running = Running(),
    *,
    transfer: Sequence[TransferReference] = (),
    metrics: Mapping[str, Metric] | None = None,
    watchers: Watchers = Watchers(),
) -> Visualization:
    """Draw one image per facet of `targets` and measure it beside its baselines.

    network: of `load_network`. targets: of `discover_facets`; the layer and the top-k channels stand in them.
    `method` is how they are drawn, the calibrated method if nothing is said; `running` where, and what is kept on the
    way.

    transfer: further networks to judge the pictures by, each of `transfer_reference`. metrics: further figures by
    their names, each a function of (pictures [C, ch, S, S] in 0..1, their activations [C, D, H', W'], targets) that
    gives [C]; they are tried on the initial images before anything is drawn. watchers: who is told of it.

    A facet whose loss, gradient or picture is no longer finite is stopped and stays as it was before that step; its row
    in the measures says so, `stopped`, and the summary and the baselines' leave it out.

    Raises ValueError in one line for what cannot be done, also where every facet is stopped.

    >>> from mindseye.demo.photographs import write_photographs
    >>> import mindseye as me, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = write_photographs(folder.name, "padlock", 12, seed=0)
    >>> network, photographs = me.load_network("demo"), me.load_photographs(folder.name, size=32)
    >>> targets = me.discover_facets(network, photographs, "layer3.0", me.Facets(C=2, k=8, N=4))
    >>> contrast = lambda images, activations, targets: images.flatten(1).std(dim=1)
    >>> result = me.visualize(network, targets, me.Method(steps=2), metrics={"contrast": contrast})
    >>> result.images.shape, result.metrics["summary"]["contrast"] > 0
    (torch.Size([2, 3, 32, 32]), True)
    >>> folder.cleanup()
    """
    if not isinstance(transfer, Sequence) or not all(isinstance(judge, TransferReference) for judge in transfer):
        raise ValueError("transfer must be a list of what transfer_reference gives")
    check_targets(targets)
    check_asked(method, running, watchers)
    prepared = prepare_for(network, targets, method)
    method = replace(method, previous=prepared.previous)  # its exact name, by which a prepared network knows it
    if metrics:  # a measure that fails costs no drawing
        check_names(metrics)
        measure(prepared, targets, targets.initial, Measuring(metrics=metrics, way=()))
    measuring = Measuring(gain=method.objective.gain, transfer=transfer, metrics=metrics)
    fitted = fit(prepared, targets, method, running, watchers)
    way, evidence = look_at_photographs(prepared, targets)
    measuring = replace(measuring, way=way)
    figures = measured(prepared, targets, fitted, measuring, method.seed)
    figures["provenance"] = provenance(prepared, targets, method, running)
    figures["status"] = "completed"
    features = {"pixels": broad_structure(fitted.images)}
    features |= {f"transfer.{judge.name}": judge_features(fitted.images, judge) for judge in transfer}
    where = look_where(prepared, targets, evidence, fitted.transparency)
    title = f"{network.name} · {targets.layer}"
    return Visualization(fitted.images, figures, targets, fitted, title, features, where)


def measured(
    network: PreparedNetwork, targets: FacetTargets, fitted: Fit, measuring: Measuring, seed: int
) -> dict[str, Any]:
    """What metrics.json says of a fit's pictures: each facet's figures, their means, and the baselines'."""
    rows = measure(network, targets, fitted.images, measuring)
    compared = baselines(network, targets, measuring, seed=seed)
    rows, compared = with_gains(rows, compared), {name: with_gains(row, compared) for name, row in compared.items()}
    about = facet_figures(targets, measuring.transfer)
    rows = [{**row, "facets": facet} for row, facet in zip(rows, about, strict=True)]
    own = own_terms(fitted, targets.C)
    rows = [{**row, **({"loss": terms} if terms else {})} for row, terms in zip(rows, own, strict=True)]
    marks = {c: {"marks": ", ".join(own)} for c, own in enumerate(targets.marks()) if own}
    stopped = {c: {"stopped": {"step": stop.step, "why": stop.reason}} for c, stop in fitted.stopped.items()}
    apart = [{"facet": c, **marks.get(c, {}), **stopped.get(c, {})} for c in range(targets.C)]
    whole = [c for c in range(targets.C) if c not in stopped]
    summary = summarise([rows[c] for c in whole])
    return {
        "facets": [
            {**apart[c], **row, "baselines": {name: rows[c] for name, rows in compared.items()}}
            for c, row in enumerate(rows)
        ],
        # A stopped facet's picture is one of another number of steps: it would blur every mean.
        "summary": {**summary, "facets": {**summary["facets"], **agreement_figures(targets)}},
        "baselines": {name: summarise([others[c] for c in whole]) for name, others in compared.items()},
        "photographs": {
            "used": len(targets.paths),
            "skipped": len(targets.skipped),
            "skipped_files": [{"path": file.path, "reason": file.reason} for file in targets.skipped],
        },
        "timing": {"fit_s": round(fitted.seconds, 3), "step_ms": rounded(fitted.step_ms)},
    }


def own_terms(fitted: Fit, facets: int) -> list[dict[str, float | None]]:
    """What the objective's own terms were at the last step that each facet took, before their weights."""
    terms: list[dict[str, float | None]] = [dict.fromkeys(fitted.extra) for _ in range(facets)]
    for name in fitted.extra:
        for facet, term in zip(fitted.history["facet"], fitted.history[name], strict=True):
            if term is not None:
                terms[int(facet or 0)][name] = rounded(term)
    return terms


def facet_figures(targets: FacetTargets, references: Sequence[TransferReference]) -> list[dict[str, Any]]:
    """What can be said of each facet before anything is drawn: firmness, effective, clarity and redundancy.

    The last two in the layer itself and, under `networks`, in each network that judges.
    """
    figures: dict[str, Any] = {
        "firmness": targets.firmness, "effective": targets.effective, "clarity": targets.clarity,
        "redundancy": targets.redundancy,
    }  # fmt: skip
    figures = {name: values for name, values in figures.items() if values.numel()}
    if references:
        figures["networks"] = {
            judge.name: {"clarity": clarity(judge.means, judge.mean), "redundancy": redundancy(judge.means, judge.mean)}
            for judge in references
        }
    return [row_of(figures, c) for c in range(targets.C)]


def agreement_figures(targets: FacetTargets) -> dict[str, Any]:
    """How firm all facets together are, by the adjusted Rand index; nothing of earlier versions' targets."""
    agreement = dict(zip(KINDS_OF_DRAW, map(rounded, targets.agreement.tolist()), strict=False))
    return {"agreement": agreement} if agreement else {}


def provenance(network: PreparedNetwork, targets: FacetTargets, method: Method, running: Running) -> dict:
    """What is needed to know where a result came from and to make it again."""
    python = platform.python_version()
    # Not what is installed under its name, which may be nothing or another copy.
    installed = {"mindseye": mindseye.__version__, "python": python, **versions(*PACKAGES)}
    device = network.mean.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": installed,
        "git_commit": git_commit(),
        "network": {
            "name": network.name,
            "sha256": network.fingerprint(),
            "prepared": {"traced": network.traced, "folded": network.folded, "way": list(network.way)},
            "precision": method.precision,
            "compiled": running.compile,
        },
        "targets": {"layer": targets.layer, "channels": targets.maps.shape[1], "sha256": targets.content_hash()},
        "photographs": {"sha256": targets.content or None},
        "device": {"type": device.type, "name": name, "threads": torch.get_num_threads()},
        "seed": method.seed,
    }
