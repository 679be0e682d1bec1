"""Pydantic's findings as problems with file, line, column, field, and the nearest valid name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ValidationError

from muster.config.document import Document, Location, Place
from muster.config.expected import expected, found
from muster.described import DescribedModel
from muster.errors import ConfigError, Problem, nearest

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

__all__ = ("FileModel", "as_meant", "field_names", "problems_at", "problems_of", "validate")


class FileModel(DescribedModel):
    """Base of every model of a file that users write: unknown fields are errors."""


M = TypeVar("M", bound=BaseModel)


def validate(
    model: type[M], data: object, document: Document, location: Sequence[str | int] = ()
) -> M:
    """`data`, which stands at `location` in `document`, as a `model`.

    Raises:
        ConfigError: with one problem for each mistake.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(problems_of(error, model, document, location)) from None


def as_meant(model: type[M], data: object) -> M | None:
    """`data` with its unknown fields under the nearest known names, or left out, so that the rest
    can be checked in the same round; `None` if anything else is wrong with it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    if any(detail["type"] not in ("extra_forbidden", "missing") for detail in details):
        return None
    meant = deepcopy(data)
    for detail in details:
        if detail["type"] == "missing":
            continue  # perhaps it is there, under a name that is written wrong
        *way, name = detail["loc"]
        holder: Any = meant
        for step in way:
            inside = _item(holder, step)
            holder = holder if inside is _MISSING else inside
        if not isinstance(holder, dict) or name not in holder:
            return None
        value = holder.pop(name)
        if (near := _meant(detail["loc"], model)) is not None:
            holder.setdefault(near, value)
    try:
        return model.model_validate(meant)
    except ValidationError:
        return None


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    document: Document,
    location: Sequence[str | int] = (),
) -> list[Problem]:
    """One problem for each of pydantic's findings."""
    base = Place(document, tuple(location))
    return problems_at(error, model, lambda loc: (base, loc))


def problems_at(
    error: ValidationError,
    model: type[BaseModel] | None,
    place_of: Callable[[Location], tuple[Place, Location]],
) -> list[Problem]:
    """As `problems_of`, for data gathered from several places: `place_of` says for pydantic's
    location of a finding where to start from, and which steps are left to go."""
    places: dict[tuple[int, Location], tuple[Place, list[ErrorDetails]]] = {}
    details = error.errors(include_url=False)
    there = _there_under_another_name(details, model)
    for detail in details:
        if detail["type"] == "missing" and detail["loc"] in there:
            continue  # it is told already what is wrong
        base, steps = place_of(detail["loc"])
        place = base.at(*_real_steps(steps, base, missing=detail["type"] == "missing"))
        places.setdefault((id(place.document), place.location), (place, []))[1].append(detail)
    return [_problem(place, details, model) for place, details in places.values()]


def _problem(place: Place, details: list[ErrorDetails], model: type[BaseModel] | None) -> Problem:
    """What is wrong at one place. A union reports each of its branches."""
    first = details[0]
    if first["type"] == "extra_forbidden":
        return place.problem(_unknown_field(first, model), of_key=True)
    wanted = expected(first)
    if wanted is None or first["type"] in ("missing", "value_error", "assertion_error"):
        return place.problem(_message(first))
    choices = dict.fromkeys(filter(None, map(expected, details)))
    return place.problem(f"expected {' or '.join(choices)}, found {found(first)}")


def field_names(model: type[BaseModel]) -> set[str]:
    """All names under which the fields of `model` can be written."""
    names: set[str] = set()
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        names |= {name, *(choice for choice in choices if isinstance(choice, str))}
    return names


def _real_steps(loc: Location, base: Place, *, missing: bool) -> Location:
    """Pydantic puts union branches and validators' names into `loc`; keep what is in the data,
    and the last step if it is a field that is `missing`."""
    steps: list[str | int] = []
    value: Any = base.document.data
    for step in base.location:
        value = _item(value, step)
    for number, step in enumerate(loc):
        inside = _item(value, step)
        if inside is _MISSING:
            if missing and number == len(loc) - 1:
                steps.append(step)
            continue
        steps.append(step)
        value = inside
    return tuple(steps)


_MISSING = object()


def _item(value: Any, step: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(step, _MISSING)
    if isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value):
        return value[step]
    return _MISSING


def _there_under_another_name(
    details: list[ErrorDetails], model: type[BaseModel] | None
) -> set[Location]:
    """Fields that are not there because their names are written wrong."""
    return {
        (*loc[:-1], near)
        for loc in (each["loc"] for each in details if each["type"] == "extra_forbidden")
        if model is not None and (near := _meant(loc, model)) is not None
    }


def _meant(loc: Location, model: type[BaseModel]) -> str | None:
    """The nearest name to that of an unknown field."""
    known = sorted(_shown_names(_model_at(model, loc[:-1])))
    return next(iter(nearest(str(loc[-1]), known)), None)


def _unknown_field(detail: ErrorDetails, model: type[BaseModel] | None) -> str:
    name = str(detail["loc"][-1])
    if model is None:
        return f'unknown field "{name}"'
    known = sorted(_shown_names(_model_at(model, detail["loc"][:-1])))
    near = nearest(name, known)
    hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
    return f'unknown field "{name}" ({hint})'


def _model_at(model: type[BaseModel], loc: Iterable[int | str]) -> type[BaseModel]:
    """The model that the fields at `loc` belong to, as far as annotations tell."""
    for step in loc:
        if not isinstance(step, str):
            continue
        info = _field(model, step)
        if info is None:
            continue
        inner = _models_in(info.annotation)
        if inner:
            model = inner[0]
    return model


def _field(model: type[BaseModel], name: str) -> FieldInfo | None:
    """The field that is written `name` in a file."""
    known = model.model_fields.get(name)
    if known is not None and known.alias in (None, name):
        return known
    return next((info for info in model.model_fields.values() if info.alias == name), None)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _shown_names(model: type[BaseModel]) -> Iterable[str]:
    for name, info in model.model_fields.items():
        yield info.alias or name


def _message(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "missing":
        return f'"{detail["loc"][-1]}" is required'
    if kind in ("value_error", "assertion_error"):
        return str(detail.get("ctx", {}).get("error", detail["msg"]))
    if kind == "union_tag_not_found":
        return f"{detail.get('ctx', {}).get('discriminator')} is required"
    return f"{detail['msg']}, found {found(detail)}"
