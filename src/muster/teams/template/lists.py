"""Functions on lists and mappings, named and ordered as in sprig.

They return new values. Only `set` changes one, and only a mapping that the template itself made.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

from muster.teams.template.arguments import check_items, mapping, sequence, text
from muster.teams.template.errors import FunctionError
from muster.teams.template.strings import texts
from muster.teams.template.values import Dict, is_number, plain

__all__ = (
    "append",
    "concat",
    "first",
    "get",
    "has",
    "has_key",
    "initial",
    "keys",
    "last",
    "make_dict",
    "make_list",
    "merge",
    "omit",
    "pick",
    "prepend",
    "rest",
    "reverse",
    "set_key",
    "sort_alpha",
    "uniq",
    "values",
    "without",
)

# --- lists --------------------------------------------------------------------------------------


def make_list(*items: Any) -> list[Any]:
    """A list of its arguments."""
    return list(items)


def first(items: Any) -> Any:
    """The first item; null if there is none."""
    found = sequence(items)
    return found[0] if found else None


def last(items: Any) -> Any:
    """The last item; null if there is none."""
    found = sequence(items)
    return found[-1] if found else None


def rest(items: Any) -> list[Any]:
    """All but the first."""
    return list(sequence(items)[1:])


def initial(items: Any) -> list[Any]:
    """All but the last."""
    return list(sequence(items)[:-1])


def append(items: Any, item: Any) -> list[Any]:
    """With one more at the end."""
    return concat(items, [item])


def prepend(items: Any, item: Any) -> list[Any]:
    """With one more at the start."""
    return concat([item], items)


def concat(*parts: Any) -> list[Any]:
    """All items of all lists."""
    lists = [sequence(part) for part in parts]
    check_items(sum(map(len, lists)))
    return [item for part in lists for item in part]


def uniq(items: Any) -> list[Any]:
    """Each value once, where it stands first."""
    found: dict[Hashable, Any] = {}
    for item in sequence(items):
        found.setdefault(_identity(item), item)
    return list(found.values())


def has(item: Any, items: Any) -> bool:
    """Whether `item` is among the items; false for null."""
    if items is None:
        return False
    wanted = _identity(item)
    return any(_identity(other) == wanted for other in sequence(items))


def without(items: Any, *unwanted: Any) -> list[Any]:
    """Without the values that follow."""
    dropped = {_identity(item) for item in unwanted}
    return [item for item in sequence(items) if _identity(item) not in dropped]


def reverse(items: Any) -> list[Any]:
    """The last item first."""
    return list(reversed(sequence(items)))


def sort_alpha(items: Any) -> list[str]:
    """The items as text, sorted by their characters' codes."""
    return sorted(texts(items))


def _identity(value: Any) -> Hashable:
    """Equal for equal values: as JSON they are the same."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return (type(value).__name__, value)
    if is_number(value):
        return ("number", value)
    return ("json", json.dumps(plain(value), sort_keys=True))


# --- mappings -----------------------------------------------------------------------------------


def make_dict(*pairs: Any) -> Dict:
    """`dict "a" 1 "b" 2`."""
    if len(pairs) % 2:
        raise FunctionError("takes a value for every key; the last key has none")
    return Dict(
        {text(key, "a key"): value for key, value in zip(pairs[::2], pairs[1::2], strict=True)}
    )


def get(items: Any, key: Any) -> Any:
    """The value of a key; empty text if there is none."""
    return mapping(items).get(text(key, "the key"), "")


def set_key(items: Any, key: Any, value: Any) -> Dict:
    """Change a mapping that the template made, and return it."""
    if not isinstance(items, Dict):
        mapping(items)
        raise FunctionError("the data cannot be changed, only what the template made; use merge")
    items[text(key, "the key")] = value
    return items


def has_key(items: Any, key: Any) -> bool:
    """Whether it has the key."""
    return text(key, "the key") in mapping(items)


def keys(*items: Any) -> list[str]:
    """All keys of all mappings, sorted in each."""
    return [key for part in items for key in sorted(map(str, mapping(part)))]


def values(items: Any) -> list[Any]:
    """The values, in the order of the keys."""
    found = mapping(items)
    return [found[key] for key in sorted(found)]


def pick(items: Any, *wanted: Any) -> Dict:
    """With the named keys only."""
    names = {text(key, "a key") for key in wanted}
    return Dict({key: value for key, value in mapping(items).items() if key in names})


def omit(items: Any, *unwanted: Any) -> Dict:
    """Without the named keys."""
    names = {text(key, "a key") for key in unwanted}
    return Dict({key: value for key, value in mapping(items).items() if key not in names})


def merge(*parts: Any) -> Dict:
    """All keys of all mappings; where several have one, the earliest wins."""
    found = Dict()
    for part in parts:
        _fill(found, mapping(part), 100)
    return found


def _fill(into: Dict, other: Mapping[str, Any], depth: int) -> None:
    """Add what `into` lacks."""
    if depth == 0:
        raise FunctionError("the mappings nest more than 100 levels deep")
    for key, value in other.items():
        if key not in into:
            into[key] = value
        elif isinstance(into[key], Mapping) and isinstance(value, Mapping):
            inner = Dict(into[key])
            _fill(inner, value, depth - 1)
            into[key] = inner
