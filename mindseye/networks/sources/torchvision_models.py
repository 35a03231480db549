"""torchvision's models by name: weights that it publishes or of a file, and the normalisation that goes with them."""

import functools
import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from torch import Tensor, nn

from mindseye.fields import Count
from mindseye.networks.modules import tensors
from mindseye.networks.network import Network
from mindseye.networks.sources.source import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SIZE,
    Loaded,
    Preprocessing,
    Published,
    Source,
    downloaded,
    nearest_names,
)
from mindseye.networks.weight_files import STATE_DICT_FILES, Saved, StateDict, read_state_dict, weights_file
from mindseye.networks.weights import class_count, fit_names, load_weights

log = logging.getLogger(__name__)
Family = Literal["classification", "segmentation", "detection"]
Builder = Callable[..., nn.Module]
CLASSES: Mapping[Family, int] = {"classification": 1000, "segmentation": 21, "detection": 91}  # of published weights
RESCALES = ("googlenet", "inception_v3")  # which torchvision has with and without `transform_input`


@dataclass(frozen=True)
class TorchvisionSource(Source):
    """A torchvision model for classification or segmentation, or the backbone of one for detection.

    name: as torchvision has it. weights: None (random), "DEFAULT" or another of its published weights (downloaded
    once), also as torchvision's own enumeration has it, or a file with a state dict. mean, std, size: None takes what
    the published weights were evaluated with; of a file that is one of them, by its name or its hash, that one's; of
    any other what all of the name have in common, where they have it. A vision transformer of another size has its
    position embeddings interpolated. num_classes: None reads it from the file, 1000 otherwise (segmentation: 21); a
    detection network's heads have no part in what is looked into. arguments: further ones of torchvision's own
    function, such as {"transform_input": False} of an inception_v3 that was trained without. layers, prefix: see
    `Source`.
    """

    name: str
    weights: Published | Enum = "DEFAULT"
    num_classes: Count | None = None
    arguments: Mapping[str, Any] | None = None

    def load(self) -> Network:
        """The network, frozen and in evaluation mode. Raises ValueError, FileNotFoundError."""
        from torchvision import models

        family = _family(self.name)
        published = models.get_model_weights(self.name)
        weights = _plain_name(self.weights, published)
        file = weights_file(weights)
        entry = self._entry(weights, published) if file is None else _entry_of_file(file, published)
        own = _reading([*published] if entry is None else [entry])
        if (self.mean is None or self.std is None) and own.mean is None and file is not None:
            raise ValueError(
                f"{self.name} has published weights of several mean and std, and {file.name} is none of them: give "
                "mean and std as in its training, one number per channel"
            )
        reading = self.preprocessing(own)
        build = self._builder(guessed=file is not None and entry is None)
        try:
            if file is not None:
                loaded = self._filled(build, family, reading.size, read_state_dict(file), file)
            elif entry is None:
                loaded = Loaded(build(**self._built_with(family, reading.size, random=True)))
            elif self.name.startswith("vit_") and reading.size != own.size:
                state = downloaded(self.name, lambda: entry.get_state_dict(progress=False, check_hash=True), entry.url)
                loaded = self._filled(build, family, reading.size, {"": state}, Path(weights))
            else:
                loaded = Loaded(downloaded(self.name, lambda: build(weights=entry, progress=False), entry.url))
        except TypeError as error:
            given = dict(self.arguments or {})
            raise ValueError(f"torchvision's {self.name} cannot be built with {given}: {error}") from error
        if entry is not None and family == "classification":
            loaded = replace(loaded, classes=_classes(entry.meta["categories"], loaded.body))
        if family == "detection":
            body: Any = loaded.body
            reading = self.preprocessing(Preprocessing(body.transform.image_mean, body.transform.image_std, own.size))
            loaded = replace(loaded, body=_DetectionBackbone(body.backbone))
        return self.network(self.name, loaded, reading)

    def _entry(self, weights: str | None, published: Any) -> Any:
        """The published weights that are asked for; None for random ones."""
        if weights is None:
            return None
        if weights not in published.__members__:  # DEFAULT is among them
            raise ValueError(
                f"{self.name} has no weights {weights!r}: give null, {', '.join(published.__members__)}, "
                f"or a file ({' '.join(STATE_DICT_FILES)})"
            )
        return published[weights]

    def _builder(self, *, guessed: bool) -> Builder:
        """torchvision's function with further arguments; `guessed`: whether its `transform_input` is."""
        from torchvision import models

        given = dict(self.arguments or {})
        if self.name in RESCALES and "transform_input" not in given:
            given["transform_input"] = True  # as the published weights were trained
            if guessed:
                log.warning(
                    "%s is taken with transform_input=true, as its published weights are: where yours were trained "
                    "without, give arguments={transform_input: false}",
                    self.name,
                )
        return functools.partial(models.get_model_builder(self.name), **given)

    def _built_with(self, family: Family, size: int, *, random: bool) -> dict[str, Any]:
        """What torchvision's function is called with for a model without its published weights."""
        arguments: dict[str, Any] = {"num_classes": self.num_classes or CLASSES[family], "weights": None}
        if family != "classification":
            arguments["weights_backbone"] = None
        if self.name in RESCALES:
            arguments.update(aux_logits=False, init_weights=random)  # auxiliary heads are not looked into
        if self.name.startswith("vit_"):
            arguments["image_size"] = size
        return arguments

    def _filled(self, build: Builder, family: Family, size: int, saved: Saved, source: Path) -> Loaded:
        """The model with what was saved, and as many classes as that has."""
        arguments = self._built_with(family, size, random=False)
        body = build(**arguments)
        if self.name.startswith("densenet"):
            saved = {key: _new_densenet_names(state) for key, state in saved.items()}
        state = fit_names(saved, body, source, self.prefix)
        if family == "detection":
            backbone = {key.removeprefix("backbone."): state[key] for key in state if key.startswith("backbone.")}
            lacking = load_weights(backbone, body.get_submodule("backbone"), source, self.name)
            return Loaded(body, frozenset(f"backbone.{key}" for key in lacking))
        if self.name in RESCALES or family == "segmentation":
            state = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
        if self.name.startswith("vit_"):
            state = _for_size(state, body, size)
        if self.num_classes is None and (classes := class_count(state, body, CLASSES[family])) is not None:
            body = build(**{**arguments, "num_classes": classes})
        return Loaded(body, load_weights(state, body, source, self.name))


def _plain_name(weights: Any, published: Any) -> Any:
    """The name of torchvision's weights out of its enumeration's entry, or of that as a text; anything else as it is.

    Raises ValueError for those of another network, whose names are the same.
    """
    match = re.fullmatch(r"(?:torchvision\.models\.)?(\w+_Weights)\.(\w+)", str(weights))
    if match is None:
        return weights
    if match[1] != published.__name__:
        raise ValueError(f"{weights} is of another network: there are {', '.join(map(str, published))}")
    return match[2]


class _DetectionBackbone(nn.Module):
    """The backbone under the name it has in the whole network, which takes lists of images and looks for boxes."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Any:
        """What the backbone gives for normalised images [B,3,H,W]."""
        return self.backbone(images)


def _family(name: str) -> Family:
    """Which kind of model a name is of. Raises ValueError where it is of none that takes images [B,3,H,W]."""
    from torchvision import models

    homes: dict[Family, ModuleType] = {
        "classification": models, "segmentation": models.segmentation, "detection": models.detection,
    }  # fmt: skip
    known = {family: models.list_models(module=home) for family, home in homes.items()}
    for family, names in known.items():
        if name in names:
            return family
    everything = [name for names in known.values() for name in names]
    raise ValueError(f"torchvision has no model {name!r} of images{nearest_names(name, everything)}")


def _reading(entries: Sequence[Any]) -> Preprocessing:
    """What these published weights were evaluated with, as far as it is the same for all of them."""
    evaluated = [entry.transforms() for entry in entries]
    normalisations = {
        (tuple(preset.mean), tuple(preset.std))
        for preset in evaluated
        if hasattr(preset, "mean") and hasattr(preset, "std")
    }
    sizes = {int(preset.crop_size[0]) for preset in evaluated if hasattr(preset, "crop_size")}
    size = sizes.pop() if len(sizes) == 1 else SIZE
    if len(normalisations) > 1:
        return Preprocessing(None, None, size)
    mean, std = normalisations.pop() if normalisations else (IMAGENET_MEAN, IMAGENET_STD)
    return Preprocessing(mean, std, size)


def _entry_of_file(path: Path, published: Any) -> Any:
    """Which of torchvision's published weights a file is, by its name or by its sha256; None where it is none."""
    digest: str | None = None
    for entry in published:
        if Path(entry.url).name == path.name:
            return entry
        if (beginning := re.search(r"-([0-9a-f]{8,})\.", Path(entry.url).name)) is not None:
            if digest is None:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest.startswith(beginning[1]):
                return entry
    return None


def _classes(names: Sequence[str], body: nn.Module) -> Sequence[str] | None:
    """The published names of outputs; None where a file of the published one's name has other classes."""
    return names if any(tensor.shape[:1] == (len(names),) for _, tensor in tensors(body)) else None


def _new_densenet_names(state: StateDict) -> StateDict:
    """"denselayer1.norm.1.weight" of old files is "denselayer1.norm1.weight" today."""
    return OrderedDict((re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", key), state[key]) for key in state)


def _for_size(state: StateDict, body: nn.Module, size: int) -> StateDict:
    """torchvision's vision transformer with its position embeddings interpolated to images of another size."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    if "encoder.pos_embedding" not in state:
        return state  # what is missing is said when it is loaded
    return interpolate_embeddings(size, body.patch_size, OrderedDict(state))
