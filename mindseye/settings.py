"""The settings of a run, one value a stage; `Run` is what conf/visualize.yaml composes to. No torch here.

A field is described once, here: its type, range and default, and a sentence under it. The command's messages, the
configuration's defaults and its reference are made from these.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

from mindseye.fields import (
    AT_ROOT,
    MOST,
    NOT_CONFIGURED,
    Count,
    Names,
    Seed,
    Side,
    Text,
    WrongField,
    default_of,
    fields_of,
    is_marked,
    value,
)
from mindseye.words import did_you_mean

MOST_HELD_OUT = 0.5  # share of the photographs
MISSING = "???"  # what stands in conf/ for a value that must be given
Bands = Annotated[
    tuple[int, int, int], BeforeValidator(lambda bands: tuple(bands) if isinstance(bands, list) else bands)
]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]


@value
class Images:
    """The photographs: a folder of the user's own, or those that are drawn for the demo."""

    root: Text | None = None
    """A folder of images or of class folders; null: photographs are drawn, whose facets are known."""
    size: Side | None = None
    """Side in pixels; null: the network's own."""
    black: Annotated[float, Field(le=MOST)] | None = None
    """Of raw counts the value in the files that becomes 0; null: by the file's type."""
    white: Annotated[float, Field(le=MOST)] | None = None
    """Of raw counts the value in the files that becomes 1; null: by the file's type."""
    bands: Bands | None = None
    """Of more than three bands those that pictures show as red, green and blue, counted from 0; null: the first three.
    The network sees all of them, and bands.png has each."""
    kind: Literal["padlock", "screw", "banana", "mug", "leaf", "mushroom", "bulb", "umbrella"] = "padlock"
    """What the drawn photographs show."""
    count: Annotated[int, Field(ge=1, le=1_000_000)] = 160
    """How many are drawn."""

    def __post_init__(self) -> None:
        if (self.black is None) != (self.white is None) or (self.black is not None and self.black == self.white):
            raise ValueError(
                "black and white must be two different numbers, the values in the files that become 0 and 1, or both "
                f"be null, not {self.black} and {self.white}"
            )


@value
class Facets:
    """What kinds of stimuli are looked for, and how photographs are weighted, chosen and blended (section 3.1)."""

    C: Annotated[Count | Literal["auto"], AT_ROOT] = 4
    """Facets, at most as many as photographs; auto: the number from 2 to 12 that tells kinds apart best."""
    k: Annotated[Count, AT_ROOT] = 50
    """Channels per facet that count, those with the largest mean in its target: at most the layer's D."""
    clusters: Literal["components", "embedding", "consensus"] = "components"
    """Where facets are looked for: among the components of the PCA of directions; in the embedding of the t-SNE, as the
    paper does; or by the consensus of 20 t-SNEs. Distances in Eq. 1 are taken in the space that was clustered (of a
    consensus in the components)."""
    weighting: Literal["calibrated", "published"] = "calibrated"
    """Whether distances are divided by their mean before Eq. 1 (calibrated) or taken as they are (published)."""
    effective: Annotated[float, Field(ge=1, le=MOST)] | None = 6.0
    """1/Σw², how many photographs a blend amounts to, by the temperature of Eq. 1; N or more is all alike, null Eq. 1
    as printed."""
    selection: Literal["staying", "nearest", "nearest_members", "farthest"] = "staying"
    """Which photographs stand for a centre: the nearest of the members that stay with their facet (staying); the
    nearest of all, as in the paper; the nearest_members of the cluster's own; or the farthest, as the released program
    does."""
    N: Count = 10
    """Photographs per facet; where there are fewer, all of them."""
    gamma: Annotated[float, Field(ge=1e-9, le=MOST)] | None = None
    """γ of Eq. 1; a larger one spreads the weights over more photographs; null: the weighting's own, 0.1 where
    calibrated, 1e-5 where published."""
    components: Count = 10
    """Of the PCA, cut down to the photographs and channels there are."""
    perplexity: Annotated[float, Field(ge=1, le=MOST)] = 30.0
    """Of the t-SNE, about how many neighbours a photograph has in it; cut down to (M − 1)/3 of M photographs."""
    tsne: Literal["auto", "barnes_hut", "fft", "subsample"] = "auto"
    """How the t-SNE is computed: barnes_hut (scikit-learn), fft (openTSNE, the extra `tsne`), subsample (so many
    photographs by barnes_hut, the others placed between them); auto: barnes_hut for `subsample` photographs or fewer,
    else fft where it is installed."""
    subsample: Annotated[int, Field(ge=6, le=MOST)] = 5000
    """So many photographs: see tsne."""
    held_out: Annotated[float, Field(ge=0, le=MOST_HELD_OUT)] = 0.2
    """Share of the photographs, drawn by the seed, that take part in nothing but the measures that need them; none
    where there are fewer than 5·C·N."""
    batch_size: Count = 16
    """Photographs that go through the network at once."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes that read photographs; null: by their number and the cores; 0: none."""
    seed: Annotated[Seed, AT_ROOT] = 0
    """Of all that is random; the same seed on the same machine gives the same bytes."""
    way: Annotated[Literal["auto"] | Names, NOT_CONFIGURED] = "auto"
    """The layers on the way to the target whose answers to the photographs are kept, for an objective to match: auto
    finds them (see `mindseye.networks.way.layers_on_the_way`), names pick others, () is none. A network that is
    prepared already has its own."""


@value
class CacheSettings:
    """What runs share on disk."""

    folder: Text | None = None
    """Null: $MINDSEYE_CACHE, else mindseye in the user's cache folder; may be shared between hosts."""
    limit_gb: Annotated[float, Field(ge=0, le=MOST)] = 20.0
    """Of 10⁹ bytes; what was used last stays. 0: no cache."""


@value
class Running:
    """Where and how a fit is computed, and what is kept of it on the way.

    On a CPU nothing here changes a picture, but for `compile`, whose sums have another order, and for networks that
    draw at random themselves, facet by facet.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Where the network computes; auto takes the fastest there is."""
    devices: Count = 1
    """How many processes, each with a device of its own, share the facets of a run; on a CPU they share its threads."""
    nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many nodes of a Slurm allocation share the facets of a run, each with `devices` of its own: srun starts a
    task on each, and their run folder lies where all of them see it."""
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    """Lightning's profiler of the fit, whose summary goes to the log, run.log of a run: simple is by the parts of a
    step, advanced by Python's functions, pytorch by torch's operations."""
    detect_anomaly: bool = False
    """Have autograd name the operation whose gradient is the first NaN; several times as slow."""
    benchmark: bool | None = None
    """Let cuDNN try which of its algorithms is the fastest, perhaps another at each start; null: as torch is set."""
    facets_per_batch: Annotated[Count | None, AT_ROOT] = None
    """Facets that are computed at once: fewer need less memory, with the same pictures (on a GPU up to rounding); null:
    all C."""
    compile: Annotated[bool, AT_ROOT] = False
    """Have torch.compile write the network's program: takes a minute first; for GPUs, on a CPU no gain."""
    snapshots: Annotated[Count, AT_ROOT] = 20
    """Keep the pictures every so many steps."""
    gradients: Annotated[Count | None, AT_ROOT] = 40
    """Note the norm of each term's own gradient after step 1 and every so many, a pass back for each weighted term;
    null: never. A compiled network has none."""
    checkpoint: Annotated[float, Field(ge=1, le=MOST), AT_ROOT] = 60.0
    """Seconds after which a run's state is saved again, so that it can be continued."""
    folder: Annotated[Text | None, NOT_CONFIGURED] = None
    """Where the fit is kept while it runs, and gone on from, see `mindseye.visualizer.checkpoints.Checkpoint`; null:
    nowhere."""


@value
class Drawing:
    """Of the method what is plain: the parts that it is put together from have groups of their own, see `Method`."""

    previous: Annotated[Text | None, AT_ROOT] = None
    """The layer that the penalty P is on; null: what enters the target layer."""
    steps: Annotated[int, Field(ge=1, le=10_000_000), AT_ROOT] = 80
    """How many the optimisation takes."""
    seed: Annotated[Seed, AT_ROOT] = 0
    """Of all that is random; the same seed on the same machine gives the same bytes."""
    precision: Annotated[Precision, AT_ROOT] = "float32"
    """In which the network computes: tf32 (NVIDIA's, in convolutions), bfloat16 and float16 are faster where the device
    has them; pictures and sums stay in float32."""


class UnknownSetting(ValueError):
    """A key that is no setting, and those that are."""

    def __init__(self, key: str, known: Sequence[str]) -> None:
        super().__init__(f"{key}: there is no such setting{did_you_mean(key, known)}")
        self.key = key
        self.known = known


# The values by their group's name in conf/.
GROUPS: Mapping[str, type] = {"images": Images, "facets": Facets, "cache": CacheSettings, "trainer": Running}
# The groups whose settings are those of a constructor, or of several by their names.
MADE = ("network", "objective", "canvas", "schedule", "transformations", "optimizer")
NAMED = ("filters", "transfer", "logger", "callbacks", "metrics")


@value
class Run:
    """All settings of a run."""

    layer: Annotated[Text | None, AT_ROOT] = None
    """A module's name (layer3.5.conv1), also in the paper's spelling (6.5.conv1); null: by depth."""
    depth: Annotated[Literal["early", "middle", "late"], AT_ROOT] = "late"
    """Early, middle or late: one of the network's own layers, so that a sweep over networks stays valid."""
    measure: Annotated[Text | None, AT_ROOT] = None
    """What a sweep compares its cells by, a figure of metrics.json; null: transfer.gain with a transfer network, else
    path.target."""
    images: Images
    facets: Facets
    cache: CacheSettings
    drawing: Drawing
    running: Running
    parts: Mapping[str, Any]
    """What stands in the groups of MADE and NAMED: constructors with their arguments."""

    def __post_init__(self) -> None:
        C, drawn = self.facets.C, self.images.count
        if self.images.root is None and C != "auto" and drawn < C:
            raise ValueError(f"C={C} facets need at least as many photographs; images.count={drawn} are drawn")
        judges = self.parts.get("transfer") or {}
        if self.measure is not None and self.measure.startswith("transfer.") and not any(judges.values()):
            raise ValueError(f"measure={self.measure}: needs a network that judges, transfer=NETWORK")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Run":
        """The values out of a composed configuration as plain values.

        Raises ValueError, in one line, for a setting that is missing, unknown or out of its range.
        """
        _refuse_unknown(settings)
        made = {group: _value_of_group(kind, group, settings) for group, kind in GROUPS.items()}
        own = {name: settings[name] for name, field in fields_of(cls).items() if is_root(field) and name in settings}
        return _value_of(
            cls,
            "",
            {
                **own,
                **{group: value for group, value in made.items() if group != "trainer"},
                "running": made["trainer"],
                "drawing": _value_of_group(Drawing, "", settings),
                "parts": {name: settings[name] for name in (*MADE, *NAMED) if name in settings},
            },
        )


def plain_settings() -> Mapping[str, FieldInfo]:
    """The field of every setting that is a plain value, by its key: k, facets.N. The root's come first."""
    kinds = [("", Run), ("", Drawing), *GROUPS.items()]
    fields = {
        key_of(group, name, field): field
        for group, kind in kinds
        for name, field in fields_of(kind).items()
        if (group or is_root(field)) and not is_marked(field, NOT_CONFIGURED)
    }
    return dict(sorted(fields.items(), key=lambda item: "." in item[0]))


def is_root(field: FieldInfo) -> bool:
    """Whether it stands at the root of the configuration."""
    return is_marked(field, AT_ROOT)


def is_seed(name: str) -> bool:
    """Whether a setting is chance.

    >>> is_seed("seed"), is_seed("facets.seed"), is_seed("k")
    (True, True, False)
    """
    return name.rpartition(".")[2] == "seed"


def key_of(group: str, name: str, field: FieldInfo) -> str:
    """Where a field stands in the configuration."""
    return f"{group}.{name}" if group and not is_root(field) else name


def defaults() -> dict[str, Any]:
    """The configuration of plain settings as the fields have it, nested."""
    nested: dict[str, Any] = {group: {} for group in GROUPS}
    for key, field in plain_settings().items():
        group, _, name = key.rpartition(".")
        (nested[group] if group else nested)[name] = default_of(field)
    return nested


def _value_of_group(kind: type, group: str, settings: Mapping[str, Any]) -> Any:
    within = settings.get(group, {}) if group else settings
    fields = {name: field for name, field in fields_of(kind).items() if not is_marked(field, NOT_CONFIGURED)}
    places = {name: settings if is_root(field) else within for name, field in fields.items()}
    return _value_of(kind, group, {name: place[name] for name, place in places.items() if name in place})


def _value_of(kind: type, group: str, given: Mapping[str, Any]) -> Any:
    fields = fields_of(kind)
    for name, entry in given.items():
        if isinstance(entry, str) and entry == MISSING:
            key = key_of(group, name, fields[name])
            raise ValueError(f"{key} must be given: {key}=…")
    try:
        return kind(**given)
    except WrongField as error:
        if error.name is None:
            raise ValueError(f"{group}: {error}" if group else str(error)) from None
        key = key_of(group, error.name, fields[error.name])
        raise ValueError(str(error).replace(error.name, key, 1)) from None


def _refuse_unknown(settings: Mapping[str, Any]) -> None:
    known = plain_settings()
    groups = (*GROUPS, *MADE, *NAMED)
    for name, given in settings.items():
        if name in GROUPS:
            if not isinstance(given, Mapping):
                raise ValueError(f"{name} must be settings by their names, not {given}")
            unknown = [f"{name}.{key}" for key in given if f"{name}.{key}" not in known]
        else:
            unknown = [] if name in known or name in groups else [str(name)]
        if unknown:
            raise UnknownSetting(unknown[0], [*known, *groups])
