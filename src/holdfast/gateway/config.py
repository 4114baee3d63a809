"""How a gateway's settings are read: from a TOML file, and from the environment where there is none.

The names in the file are those of `settings.py`, whose classes say what is allowed; mistakes are told with their lines,
all of them at once. A key of anybody's is never in the file: it is named there by a variable or by a file of its own.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from holdfast._errors import UsageError
from holdfast.dialects import DIALECTS, find
from holdfast.gateway.settings import Settings, UpstreamSettings
from holdfast.gateway.surfaces import SURFACES
from holdfast.gateway.toml_lines import Path as Keys
from holdfast.gateway.toml_lines import line_at, lines_of

T = TypeVar("T")

_ABOUT = re.compile(r"(?:\w+\()?(\w+)(?:=\.\.\.\))?[=:]? ")
"""How what a settings class says begins: with the setting that it is about."""
_WITHIN = re.compile(r"(\w+)\[(\d+)\]\.(\w+) ")
"""How it begins where it is about one of several tables."""
_SECRET = {"api_key": True, "secret": True, "journal": False}
"""What may be named by a variable (`api_key_env`) or a file (`api_key_file`); True: and by nothing else."""
_KINDS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    str: (str, "a string"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    bool: (bool, "true or false"),
    Path: (str, "the path of a file"),
}
_MODELS = {
    "deepseek": ("deepseek-*",),
    "openai": ("gpt-*", "o[0-9]*", "chatgpt-*", "codex-*", "ft:*"),
    "mistral": ("*stral-*", "mistral*"),
    "perplexity": ("sonar*",),
    "anthropic": ("claude-*",),
}
"""Which models are whose, where there are the keys of several providers: none is asked for another's."""


def load(file: Path, environment: Mapping[str, str]) -> Settings:
    """Reads a file. Raises `UsageError` that names the line and the key of every mistake, `OSError` without a file."""
    return parse(file.read_bytes(), str(file), environment, folder=file.parent)


def parse(data: bytes, name: str, environment: Mapping[str, str], *, folder: Path = Path()) -> Settings:
    """Reads the text of a file called `name`, whose paths are those of `folder`. Raises `UsageError` as `load()`."""
    try:
        text = data.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line}: this is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"^(.*) \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        line = int(found[2]) if found and found[2] else text.count("\n") + 1
        raise UsageError(f"{name}:{line}: this is no TOML: {found[1] if found else error}") from None
    mistakes: dict[Keys, str] = {}
    settings = _Reader(environment, folder, mistakes).table(Settings, document, ())
    if settings is None or mistakes:
        lines = lines_of(text)
        told = sorted((line_at(lines, keys), f"{_shown(keys)}{why}") for keys, why in mistakes.items())
        raise UsageError("\n".join(f"{name}:{line}: {why}" for line, why in told))
    return settings


class _Reader:
    """Makes settings of tables. A mistake is noted under its key, and its value left out."""

    def __init__(self, environment: Mapping[str, str], folder: Path, mistakes: dict[Keys, str]) -> None:
        self._environment = environment
        self._folder = folder
        self._mistakes = mistakes

    def table(self, kind: type[T], table: Mapping[str, Any], keys: Keys) -> T | None:
        """Gives a value of a settings class, None where there are mistakes."""
        hints = get_type_hints(kind)
        known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]  # `kind` is a dataclass
        named = {f"{name}_{by}" for name in _SECRET if name in known for by in ("env", "file")}
        values: dict[str, Any] = {}
        before = len(self._mistakes)
        for name, value in table.items():
            here = (*keys, name)
            if name in named:
                self._named(name, value, here, values)
            elif _SECRET.get(name) and name in known:
                self._wrong(here, f"a secret does not belong into this file: give {name}_env or {name}_file")
            elif name in known:
                values[name] = self._value(hints[name], value, here)
            else:
                self._wrong(here, f"there is no such key{_meant(name, [*known, *named])}")
        for name, one in known.items():
            if one.default is MISSING and one.default_factory is MISSING and name not in values:
                self._wrong((*keys, name), "is missing")
        if len(self._mistakes) > before:
            return None
        try:
            return kind(**values)
        except (ValueError, UsageError) as error:
            about, within = _ABOUT.match(str(error)), _WITHIN.match(str(error))
            if within is not None:
                self._wrong((*keys, within[1], int(within[2]), within[3]), str(error)[within.end() :])
            elif about is not None and about[1] in known:
                self._wrong((*keys, about[1]), str(error)[about.end() :])
            else:
                self._wrong(keys, str(error))
            return None

    def _value(self, hint: Any, value: Any, keys: Keys) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self._value(next(one for one in arguments if one is not types.NoneType), value, keys)
        if origin is Literal:
            if value not in arguments:
                self._wrong(keys, f"must be one of {', '.join(arguments)}, not {value!r}{_near(value, arguments)}")
            return value
        if origin is tuple:
            if not isinstance(value, list):
                return self._wrong(keys, f"takes an array, not {_kind(value)}")
            return tuple(self._value(arguments[0], one, (*keys, place)) for place, one in enumerate(value))
        if origin is dict or is_dataclass(hint):
            if not isinstance(value, dict):
                return self._wrong(keys, f"takes a table, not {_kind(value)}")
            if is_dataclass(hint):
                return self.table(cast("type[Any]", hint), value, keys)
            return {name: self._value(arguments[1], one, (*keys, name)) for name, one in value.items()}
        kinds, words = _KINDS[hint]
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
            return self._wrong(keys, f"takes {words}, not {_kind(value)}")
        return self._folder / str(value) if hint is Path else value

    def _named(self, name: str, value: Any, keys: Keys, values: dict[str, Any]) -> None:
        """Reads a secret from where its name says that it is."""
        field, _, by = name.rpartition("_")
        if not isinstance(value, str) or not value:
            self._wrong(keys, f"takes {'the name of a variable' if by == 'env' else 'the path of a file'}")
            return
        if field in values:
            self._wrong(keys, f"{field} is given twice")
            return
        if by == "env":
            found = self._environment.get(value, "")
            why = f"the environment has no variable {value}"
        else:
            try:
                found = (self._folder / value).read_text("utf-8").strip()
                why = f"{value} is empty"
            except (OSError, ValueError) as error:
                found, why = "", f"{value} cannot be read: {getattr(error, 'strerror', '') or 'it is no text'}"
        values[field] = found
        if not found:
            self._wrong(keys, why)

    def _wrong(self, keys: Keys, why: str) -> None:
        self._mistakes.setdefault(keys, why)


def environment_upstreams(environment: Mapping[str, str]) -> tuple[UpstreamSettings, ...]:
    """Gives an upstream for every provider whose key is in the environment, for its own models if there are several."""
    found: dict[str, str] = {}
    for name, dialect in DIALECTS.items():
        variable = dialect.key_variable
        if variable and dialect.base_url and variable not in found and environment.get(variable) and _is_served(name):
            found[variable] = name
    several = len(found) > 1
    return tuple(
        UpstreamSettings(dialect=name, api_key=environment[variable], models=_MODELS.get(name, ()) if several else ())
        for variable, name in found.items()
    )


def with_keys(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """Gives every upstream that has no key the one that is its provider's in the environment.

    Raises `UsageError` where a provider asks for one and there is none.
    """
    filled = []
    for one in settings.upstreams:
        dialect = find(one.dialect)
        key = one.api_key or environment.get(dialect.key_variable or "", "") or None
        if key is None and one.base_url is None and dialect.base_url.startswith("https:"):
            raise UsageError(
                f"the upstream {one.name or one.dialect!r} needs a key: set {dialect.key_variable} in the environment,"
                " or give its api_key_env or api_key_file in the --config file"
            )
        filled.append(replace(one, api_key=key))
    return replace(settings, upstreams=tuple(filled))


def key_variables() -> list[str]:
    """Names the variables that `environment_upstreams()` looks for."""
    served = (one for name, one in DIALECTS.items() if one.key_variable and one.base_url and _is_served(name))
    return list(dict.fromkeys(one.key_variable for one in served))


def check(settings: Settings) -> None:
    """Raises `UsageError` for settings that are right each for itself, and cannot be served together."""
    if not settings.upstreams:
        raise UsageError(
            "there is no upstream: set the key of a provider in the environment"
            f" ({', '.join(key_variables())}), name one with --upstream or in a --config file, or try --demo"
        )
    for one in settings.upstreams:
        dialect = find(one.dialect)
        whose = f"the upstream {one.name or one.dialect!r}"
        if not _is_served(one.dialect):
            raise UsageError(f"{whose} speaks {one.dialect!r}, which is served at no path here")
        if not (one.base_url or dialect.base_url):
            raise UsageError(f"{whose} needs a base_url: there is no one server of that dialect")
    if not settings.keys and not settings.open and not is_loopback(settings.host):
        raise UsageError(
            f"others can reach {settings.host}, and there are no gateway keys: make one with"
            " `holdfast gateway new-key` and put it into a --config file, or say --open to let everybody in"
        )
    if settings.workers > 1 and settings.journal == "memory":
        raise UsageError(
            "workers do not see each other's memory, where streams are kept: give them a Redis"
            " (--journal redis://...), or do without coming back (--journal none)"
        )


def is_loopback(host: str) -> bool:
    """Says whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _is_served(dialect: str) -> bool:
    return any(surface.dialect_of(dialect) is not None for surface in SURFACES.values())


def _shown(keys: Keys) -> str:
    said = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
    return f"{said}: " if said else ""


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    names: dict[type, str] = {str: "a string", list: "an array", dict: "a table"}
    return names.get(type(value), "a date")


def _meant(name: object, known: Iterable[str]) -> str:
    names = list(known)
    return _near(name, names) or f"; there are {', '.join(sorted(names))}"


def _near(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


__all__ = ["check", "environment_upstreams", "is_loopback", "key_variables", "load", "parse", "with_keys"]
