"""Values that say themselves what they may be: frozen, closed to unknown names, a wrong one refused in one line.

`@value` makes a dataclass whose fields are checked when it is made: type and range stand in the annotation, what the
field means in the docstring under it. From there the messages and the reference of settings are made. No torch here.
"""

import inspect
import json
import operator
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from enum import Enum
from functools import lru_cache
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs

from mindseye.words import did_you_mean, with_article

T = TypeVar("T")
CONFIG = ConfigDict(
    strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True, use_attribute_docstrings=True
)
LIMITS = ("Ge", "Gt", "Le", "Lt")  # as pydantic keeps them in an annotation
MOST = 1_000_000_000  # of any number of which nothing else is known: more is a slip

# What people call fields of one letter.
ALSO_CALLED = {
    **dict.fromkeys(("facets", "n_facets", "num_facets", "n_clusters"), "C"),
    **dict.fromkeys(("top_k", "topk", "n_channels", "num_channels"), "k"),
}
AT_ROOT = "at the root"  # marks a field that stands at the root of the configuration, not in its value's group
NOT_CONFIGURED = "not in the configuration"  # marks one that is given from Python alone

Count = Annotated[int, Field(ge=1, le=MOST)]
Weight = Annotated[float, Field(ge=0)]  # of a term of the loss
Start = Literal["facet", "sketch", "noise", "photograph"]  # what a canvas starts from, beside an image of one's own
Side = Annotated[int, Field(ge=1, le=8192)]  # of images, in pixels
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what numpy's and scikit-learn's generators take


def _as_text(name: Any) -> Any:
    """A folder may be called 2012 and a layer 2, which YAML reads as numbers."""
    return str(name) if type(name) in (int, float) else str(name) if isinstance(name, Path) else name


Text = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda names: tuple(names) if isinstance(names, list) else names)]


class Words:
    """In an annotation: what it takes, in words, where its type says too little."""

    def __init__(self, words: str) -> None:
        self.words = words


class WrongField(ValueError):
    """A value cannot be made: which field is wrong, None where several are together, and why."""

    def __init__(self, reason: str, name: str | None = None, given: Any = None) -> None:
        super().__init__(" ".join(reason.split()))
        self.name = name
        self.given = given


@dataclass_transform(frozen_default=True, kw_only_default=True)
def value(cls: type[T]) -> type[T]:
    """The class as a frozen dataclass that checks its fields; raises WrongField, a ValueError of one line.

    Its docstring goes on with the fields, and its repr names those that are not as by default. Whole numbers of other
    libraries (numpy's) become Python's.
    """
    cls._with_plain_numbers = model_validator(mode="before")(_with_plain_numbers)  # type: ignore[attr-defined]
    made: Any = dataclass(cls, frozen=True, kw_only=True, repr=False, config=CONFIG)
    made.__init__ = _in_one_line(made)(made.__init__)
    for base in made.__mro__[1:]:  # which pydantic takes no docstrings from
        for name, field in getattr(base, "__pydantic_fields__", {}).items():
            fields_of(made)[name].description = fields_of(made)[name].description or field.description
    plain = {name: _plain(field.annotation) for name, field in fields_of(made).items()}
    made.__init__.__annotations__ = {**plain, "return": None}
    signature = _signature(made, plain)
    made.__signature__ = signature
    made.__init__.__signature__ = signature.replace(
        parameters=[Parameter("self", Parameter.POSITIONAL_OR_KEYWORD), *signature.parameters.values()]
    )
    made.__doc__ = "\n\n".join([inspect.cleandoc(cls.__doc__ or ""), *_paragraphs(made)])
    made.__repr__ = _repr
    return made


@classmethod  # type: ignore[misc]
def _with_plain_numbers(cls: type, given: ArgsKwargs) -> ArgsKwargs:
    """What a value is made of, with Python's own whole numbers wherever a field takes numbers."""
    fields = fields_of(cls)
    numbers = {name for name, field in fields.items() if _takes_numbers(field.annotation)}
    named = given.kwargs or {}
    plain = {name: _plain_number(value) if name in numbers else value for name, value in named.items()}
    return ArgsKwargs(given.args, plain)


def _takes_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(_takes_numbers(inner) for inner in get_args(annotation))


def _plain_number(given: Any) -> Any:
    """A whole number that is none of Python's as one; anything else, and lists, as they are."""
    if type(given) in (list, tuple):
        return type(given)(map(_plain_number, given))
    if isinstance(given, int) or not hasattr(type(given), "__index__"):
        return given
    try:
        return operator.index(given)
    except (TypeError, ValueError, RuntimeError):  # an array of several, say
        return given


def _signature(made: type, plain: Mapping[str, Any]) -> Signature:
    parameters = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            annotation=plain[name],
            default=Parameter.empty if field.is_required() else default_of(field),
        )
        for name, field in fields_of(made).items()
    ]
    return Signature(parameters, return_annotation=None)


def _plain(annotation: Any) -> Any:
    """A type without what it is annotated with: ranges and marks."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain(arguments[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_plain, arguments))]  # noqa: UP007 - of a computed list
    return annotation


def _paragraphs(made: type) -> Iterator[str]:
    """A paragraph a field: its name, what it takes, what it means."""
    for name, field in fields_of(made).items():
        takes = described(annotation_of(field))
        text = f"{name}{f' ({takes})' if takes else ''}: {field.description or 'not described'}"
        yield textwrap.fill(text, 100, subsequent_indent="    ")


def _repr(self: Any) -> str:
    given = ((name, getattr(self, name), field) for name, field in fields_of(type(self)).items())
    shown = [f"{name}={value!r}" for name, value, field in given if field.is_required() or value != default_of(field)]
    return f"{type(self).__name__}({', '.join(shown)})"


@contextmanager
def _in_one_line(cls: type) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise wrong_field(cls, error) from None


def wrong_field(cls: type, error: ValidationError) -> WrongField:
    """The first of the mistakes that pydantic has found, in our words."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "value_error":
        own = first["ctx"]["error"]
        return WrongField(f"{name}: {own}" if name else str(own), name)
    assert name is not None
    fields = fields_of(cls)
    if name.isdecimal():  # by its place
        return WrongField(f"{cls.__name__} takes what it is given by name: {cls.__name__}({next(iter(fields))}=…)")
    if name not in fields:
        ours = ALSO_CALLED.get(name)
        meant = f"; did you mean {ours}?" if ours in fields else did_you_mean(name, list(fields))
        return WrongField(f"{cls.__name__} has no {name}{meant}", name)
    given = None if first["type"] == "missing" else _whole_value(error, name)
    annotation = annotation_of(fields[name])
    words = described(annotation, given) or with_article(getattr(annotation, "__name__", str(annotation)))
    return WrongField(f"{name} must be {words}, not {_shown(given)}", name, given)


def _shown(given: Any) -> Any:
    """As YAML has it."""
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    return "''" if isinstance(given, str) and not given else given


def _whole_value(error: ValidationError, name: str) -> Any:
    """The field's whole value, where pydantic names what is inside it too."""
    inputs = [detail["input"] for detail in error.errors() if detail["loc"] == (name,)]
    return inputs[0] if inputs else error.errors()[0]["input"]


def is_value(kind: object) -> bool:
    """Whether it is a class made by `@value`, or derived from one."""
    return isinstance(kind, type) and is_dataclass(kind) and hasattr(kind, "__pydantic_fields__")


def fields_of(cls: type) -> Mapping[str, FieldInfo]:
    """The fields of a `@value` class by name, in order: annotation, default, description."""
    return cls.__pydantic_fields__  # type: ignore[attr-defined]


def default_of(field: FieldInfo) -> Any:
    """What a field is where nothing is said; PydanticUndefined where it must be given."""
    return field.get_default(call_default_factory=True, validated_data={})


def check(name: str, given: Any, annotation: Any) -> None:
    """Raises WrongField, in one line, where a value alone is none that the annotation allows."""
    error = _mistake(given, annotation)
    if error is None:
        return
    first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
    if first is not None and first["type"] == "value_error":
        raise WrongField(f"{name}: {first['ctx']['error']}", name, given)
    raise WrongField(f"{name} must be {described(annotation, given)}, not {_shown(given)}", name, given)


def fits(given: Any, annotation: Any) -> bool:
    """Whether a value, as YAML gives it, can stand for an annotated argument; annotations not understood take anything.

    >>> fits([0.9, 0.99], tuple[float, float]), fits("1", float), fits(1, float), fits(True, int)
    (True, False, True, False)
    """
    return _mistake(given, annotation) is None


def _mistake(given: Any, annotation: Any) -> Exception | None:
    try:
        # As JSON, in which a list stands for a tuple and a text for a path.
        _adapter(annotation).validate_json(json.dumps(given, default=operator.index), strict=True)
    except (ValidationError, TypeError, ValueError) as error:
        return error
    return None


@lru_cache
def _adapter(annotation: Any) -> "TypeAdapter[Any]":
    return TypeAdapter(_writable(annotation), config=ConfigDict(allow_inf_nan=False))


def _writable(annotation: Any) -> Any:
    """The same with Any in place of types that YAML cannot write."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[_writable(arguments[0]), *arguments[1:]]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_writable, arguments))]  # noqa: UP007 - of a computed list
    if origin is tuple:
        return tuple[tuple(inner if inner is Ellipsis else _writable(inner) for inner in arguments)]  # type: ignore[misc]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, Any]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return list[_writable(arguments[0])]  # type: ignore[misc]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return str  # a member by its name
    plain = (int, float, str, bool, type(None), Path, Any)
    return annotation if origin is Literal or annotation in plain else Any


def is_marked(field: FieldInfo, mark: str) -> bool:
    """Whether the annotation carries AT_ROOT or NOT_CONFIGURED."""
    return mark in field.metadata


def annotation_of(field: FieldInfo) -> Any:
    """A field's annotation as it was written."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def described(annotation: Any, given: Any = None) -> str:
    """What an annotated argument takes, as YAML has it: a whole number of 1 or more or null.

    What YAML cannot write is left out; the largest number too, unless `given` is above it.
    """
    return _listed(dict.fromkeys(words for words in _kinds(annotation, (), given) if words))


def _kinds(annotation: Any, limits: Sequence[Any], given: Any) -> Iterator[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    told = [mark.words for mark in arguments[1:] if isinstance(mark, Words)] if origin is Annotated else []
    if told:
        yield from told
    elif origin is Annotated:
        inner = [*limits, *(limit for mark in arguments[1:] for limit in getattr(mark, "metadata", [mark]))]
        yield from _kinds(arguments[0], [limit for limit in inner if type(limit).__name__ in LIMITS], given)
    elif origin in (Union, types.UnionType):
        for kind in sorted(arguments, key=lambda kind: kind is type(None)):
            yield from _kinds(kind, limits, given)
    elif origin is Literal:
        yield from map(str, arguments)
    elif annotation in (int, float):
        yield {int: "a whole number", float: "a number"}[annotation] + _range(limits, given)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield "a mapping {name: value}"
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        each = _listed(dict.fromkeys(words for words in _kinds(arguments[0], (), given) if words))
        yield f"a list, each {each}" if each else "a list"
    else:
        names: dict[Any, str] = {str: "a text", bool: "true or false", type(None): "null", Path: "a path"}
        yield names.get(annotation, "")


def _range(limits: Sequence[Any], given: Any) -> str:
    bounds: dict[str, Any] = {type(limit).__name__: getattr(limit, type(limit).__name__.lower()) for limit in limits}
    least, above, most, below = (bounds.get(name) for name in LIMITS)
    too_much = isinstance(given, int | float) and most is not None and given > most
    if most == MOST and not too_much:
        most = None
    parts = [
        f"of {_number(least)} to {_number(most)}" if least is not None and most is not None else "",
        f"of {_number(least)} or more" if least is not None and most is None else "",
        f"of {_number(most)} or less" if least is None and above is None and most is not None else "",
        f"above {_number(above)}" if above is not None else "",
        f"and {_number(most)} or less" if above is not None and most is not None else "",
        f"{'and ' if above is not None else ''}below {_number(below)}" if below is not None else "",
    ]
    return "".join(f" {part}" for part in parts if part)


def _number(limit: float) -> str:
    return f"{int(limit):,}" if limit == int(limit) and abs(limit) < 1e15 else f"{limit:g}"


def _listed(names: Mapping[str, Any]) -> str:
    if not names:
        return ""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
