"""timm's models by name: weights that it publishes or of a file, and the normalisation that goes with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mindseye.fields import Count
from mindseye.networks.network import Network
from mindseye.networks.sources.source import Loaded, Preprocessing, Published, Source, downloaded, nearest_names
from mindseye.networks.weight_files import read_state_dict, weights_file
from mindseye.networks.weights import class_count, fit_names, load_weights


@dataclass(frozen=True)
class TimmSource(Source):
    """A timm model. name: as timm has it, with a tag or without. weights: None (random), "DEFAULT" (downloaded once),
    or a file with a state dict.

    mean, std, size: None takes timm's own for this model; the length of a given mean is the number of channels. A model
    of one image size alone (vision transformers) is built for another where one is given. num_classes: None reads it
    from the file, else it is timm's own. layers, prefix: see `Source`.
    """

    name: str
    weights: Published = "DEFAULT"
    num_classes: Count | None = None

    def load(self) -> Network:
        """The network, frozen and in evaluation mode. Raises ValueError, also without timm, FileNotFoundError."""
        try:
            import timm
            from timm.data import resolve_model_data_config
        except ImportError:
            raise ValueError("a timm network needs timm: pip install 'mindseye[timm]'") from None
        if not timm.is_model(self.name):
            near = nearest_names(self.name.split(".")[0], timm.list_models())
            raise ValueError(f"timm has no model {self.name!r}{near}")
        file = weights_file(self.weights)
        if file is None and self.weights not in (None, "DEFAULT"):
            raise ValueError(
                f"timm weights are null, DEFAULT, or a file; a tag goes into the name ({self.name}.{self.weights})"
            )
        loaded = Loaded(self._built(self.num_classes)) if file is None else self._filled(file)
        data = resolve_model_data_config(loaded.body)
        if file is not None and (self.mean is None or self.std is None):
            data = {**data, **published_normalisation(self.name, file)}
        own = Preprocessing(data["mean"], data["std"], data["input_size"][-1])
        return self.network(self.name, loaded, self.preprocessing(own))

    def _built(self, classes: int | None) -> nn.Module:
        import timm

        arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if self.mean is not None:
            arguments["in_chans"] = len(self.mean)
        published = timm.get_pretrained_cfg(self.name)
        if self.size is not None and published is not None and published.fixed_input_size:
            arguments["img_size"] = self.size
        pretrained = self.weights == "DEFAULT"
        try:
            return downloaded(self.name, lambda: timm.create_model(self.name, pretrained=pretrained, **arguments))
        except TypeError as error:  # it takes no such argument
            raise ValueError(
                f"timm cannot build {self.name} with {arguments}: {error}; without a size it takes its own"
            ) from error

    def _filled(self, file: Path) -> Loaded:
        """The model with a file's weights, and as many classes as the file has."""
        saved = read_state_dict(file)
        body = self._built(self.num_classes)
        state = fit_names(saved, body, file, self.prefix)
        built_with = int(getattr(body, "num_classes", 0))
        if self.num_classes is None and (classes := class_count(state, body, built_with)) is not None:
            body = self._built(classes)
        return Loaded(body, load_weights(state, body, file, self.name))


def published_normalisation(name: str, path: Path) -> Mapping[str, tuple[float, ...]]:
    """mean and std of a timm name whose weights come from a file: what all of its published weights have in common.

    A name with its tag is one of them, as is a file of the name that timm downloads. Raises ValueError where they
    differ, with what to give.
    """
    import timm

    tags = [name] if "." in name else [*timm.list_models(f"{name}.*", pretrained=True)]
    known = {tag: config for tag in tags if (config := timm.get_pretrained_cfg(tag)) is not None}
    known = {tag: config for tag, config in known.items() if Path(str(config.url)).name == path.name} or known
    tag_of = {(tuple(config.mean), tuple(config.std)): tag for tag, config in known.items()}
    if len(tag_of) > 1:
        first, second = sorted(tag_of.values())[:2]
        raise ValueError(
            f"timm's weights of {name} are of several mean and std ({first}, {second}): give the name with its tag, or "
            f"mean and std as in the training of {path.name}"
        )
    return {key: value for mean, std in tag_of for key, value in (("mean", mean), ("std", std))}
