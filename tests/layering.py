"""Who may import whom, as tables, and the checker that holds a source tree against them.

The rule is ARCHITECTURE.md's: values and errors below, machines and dialects over them, then the core, the layers, the
sources and mounts, the facade, the command line. A file is read, never imported, and imports inside functions count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

VALUES = {"_types", "_errors"}
FORMATS = VALUES | {"machines", "dialects"}
CORE = FORMATS | {"_clock", "_tasks", "_waiting", "_shared", "moments", "prices", "_core", "_bill", "_reader", "_pipe"}
OUTSIDE = {"sources", "mounts", "stores"}
FACADE = {"client", "offline", "sync", "upstreams", "health", "__init__"}

MAY_IMPORT: dict[str, set[str]] = {
    "_types": set(),
    "_errors": {"_types"},
    "machines": VALUES,
    "dialects": VALUES | {"machines"},
    "_clock": set(),
    "_tasks": VALUES | {"_core"},
    "_waiting": {"_clock", "machines"},
    "moments": VALUES,
    "_core": FORMATS | {"_clock", "moments"},
    "prices": VALUES | {"machines", "moments"},
    "_bill": FORMATS | {"moments", "_core"},
    "_reader": FORMATS | {"_clock", "_tasks", "moments", "_core", "_bill"},
    "_pipe": FORMATS | {"_clock", "moments", "_core", "_reader"},
    "_shared": {"_clock", "_tasks", "moments"},
    "telemetry": CORE,  # it listens to moments: of what runs it knows nothing
    "layers": CORE,
    "_defaults": CORE | {"layers"},
    **dict.fromkeys(OUTSIDE, CORE | {"layers", "_defaults"}),
    "_background": VALUES,
    "_foreground": VALUES | {"_background"},
    # A mount is a source, over the transport of somebody else.
    "mounts": CORE | {"layers", "_defaults", "sources", "_background", "_foreground"},
    "stores": CORE,  # it decides for layers, and knows none
    **dict.fromkeys(
        FACADE,
        CORE | {"layers", "_defaults", "telemetry", "client", "offline", "sync", "upstreams", "health"} | OUTSIDE,
    ),
    "upstreams": CORE | {"layers"},
    "health": CORE | {"layers"},
    # A whole application over the library, in rooms of its own; nobody but the command line knows it.
    "gateway": CORE | {"layers", "_defaults", "telemetry", "upstreams", "health"} | OUTSIDE,
    "sync": CORE | {"layers", "client", "health", "upstreams", "_background"},
    "cli": CORE | {"layers", "_defaults", "telemetry", "gateway"} | OUTSIDE | FACADE,
    "__main__": {"cli"},
    "testing": CORE | {"layers", "_defaults", "telemetry", "gateway"} | OUTSIDE | FACADE,
}
"""Room -> the rooms it may import besides itself. A room that is missing here may import nothing."""

FOR_TYPES_ONLY: dict[tuple[str, str], str] = {
    ("_types", "_core"): "a Request carries its Call: docs/adr/0004-a-type-only-import-upward.md",
    ("_types", "dialects"): "a Request names the Dialect of the upstream that it goes to",
    ("_errors", "moments"): "a StreamError carries its Report, which the edge attaches",
}
"""(room, room above it) -> why a name may be imported upward under `if TYPE_CHECKING:`, and only there."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("cli/chaos", "testing"): "it runs the chaos server and proxy, which are for tests in any language",
    ("cli/_stage", "testing"): "what the demo draws: its upstream's faults, by name",
    ("cli/demo", "testing"): "the demo brings its own upstream: docs/adr/0005-the-demo-brings-its-own-upstream.md",
    ("cli/gateway", "testing"): "so does the demo of the gateway, for the same reasons",
}
"""(module, room) -> why this one module may import what its room may not."""

STRANGERS = {"layers"}
"""Rooms whose modules never import one another: each can be left out, moved, or replaced."""

LIBRARIES: dict[str, set[str]] = {
    "aiohttp": {
        "sources",
        "mounts",
        "gateway",
        "testing",
        "client",
        "sync",
        "cli/_naive",
    },  # client, sync: `session=`; the naive client
    "aiohttp_sse_client": {"sources"},
    "httpx": {"sources/httpx", "mounts"},
    "httpx2": {"sources/httpx", "mounts"},
    "requests": {"mounts"},
    "urllib3": {"mounts"},  # what requests stands on
    "multidict": {"mounts"},  # what aiohttp stands on
    "yarl": {"mounts"},
    "msgspec": {
        *("_types", "moments", "machines", "dialects", "layers/record", "sources", "telemetry", "gateway", "cli"),
        "testing",
    },
    "redis": {"stores", "gateway/journal/_line"},
    "opentelemetry": {"telemetry"},
    "prometheus_client": {"telemetry", "gateway"},
    "uvloop": {"gateway"},
    # upstreams, client: the breakers that they make by default
    "pybreaker": {"layers/breaker", "_defaults", "upstreams", "client", "sync", "stores"},
    "structlog": {"telemetry"},
    "rich": {"cli"},
    "brotli": {"machines/inflate"},
    "backports": {"machines/inflate"},
    "jsonschema": {"machines/json_text"},
    "referencing": {"machines/json_text"},  # comes with it: what keeps it from fetching
    "compression": {"machines/inflate"},  # zstd, in the standard library from 3.14 on
    "hypothesis": {"testing"},
    "pytest": {"testing"},
}
"""Third-party library -> rooms or modules it may appear in."""

DOORS: dict[str, set[str]] = {
    # The only door to time is the clock; an event loop has a clock of its own.
    "time": {"_clock", "_foreground", "cli", "testing", "gateway"},
    "random": {"_clock", "cli", "testing"},  # and the only door to chance
    "logging": {"telemetry", "gateway"},
    "threading": {
        "layers/breaker",  # a pybreaker storage may block, so it runs in a thread
        "testing/background",  # a server for clients that block
        "_background",  # the loop of clients that block
        "_foreground",  # their loop without a thread
        "mounts/_lines",  # who works with a socket
    },
    "socket": {"sources", "mounts", "gateway", "testing"},
}
"""Standard module -> rooms or modules it may appear in. Any other may appear anywhere but in a room that is pure."""

PURE = {"machines", "dialects", "_types", "_errors", "moments"}
EFFECTS = DOORS.keys() | {
    "asyncio",
    "contextvars",
    "selectors",
    "subprocess",
    "concurrent",
    "multiprocessing",
    "secrets",
}


@dataclass(frozen=True)
class Import:
    """One imported module, and where: `typing` says that only type checkers see it."""

    name: str
    line: int
    typing: bool


def imports(tree: ast.AST, *, typing: bool = False) -> Iterator[Import]:
    """Gives every import below a node, functions and `import_module("...")` included."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for statement in node.body:
                    yield from imports(ast.Module([statement], []), typing=True)
                for statement in node.orelse:
                    yield from imports(ast.Module([statement], []), typing=typing)
                continue
            case ast.Import():
                yield from (Import(alias.name, node.lineno, typing) for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                # `from holdfast import x` may name a module or a name in the package; `_room` tells them apart.
                names = [f"{module}.{alias.name}" for alias in node.names] if module == "holdfast" else [module]
                yield from (Import(name, node.lineno, typing) for name in names)
            case ast.ImportFrom(level=level):
                yield Import("." * level + (node.module or ""), node.lineno, typing)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(name, node.lineno, typing)
        yield from imports(node, typing=typing)


def violations(files: Mapping[str, str], installed: set[str]) -> list[str]:
    """Checks a tree given as {"layers/retry": its text}; `installed` are top-level names of the standard library."""
    found = []
    for module, text in sorted(files.items()):
        tree = ast.parse(text)
        room = module.partition("/")[0]
        for imported in imports(tree):
            reason = _wrong(module, room, imported, set(files), installed)
            if reason:
                found.append(f"{module}:{imported.line}: {reason}")
        if room in PURE:
            waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
            found += [f"{module}:{n.lineno}: {room} never waits" for n in ast.walk(tree) if isinstance(n, waits)]
    return found


def _wrong(module: str, room: str, imported: Import, files: set[str], standard: set[str]) -> str:
    """Says what is wrong with one import, or nothing."""
    top, _, rest = imported.name.partition(".")
    if not top:
        return "imports are absolute: a reader sees at once which room a name comes from"
    if top == "holdfast":
        return _wrong_room(module, room, rest.replace(".", "/"), files, typing=imported.typing)
    homes = LIBRARIES.get(top) or DOORS.get(top)
    if homes is not None and not homes & {room, module}:
        return f"{top} may appear in {', '.join(sorted(homes))} only"
    if room in PURE and top in EFFECTS:
        return f"{room} decides and never acts: {top} has no place in it"
    if homes is None and top not in standard:
        return f"{top} is in no table: say in tests/layering.py which rooms it may appear in"
    return ""


def _wrong_room(module: str, room: str, target: str, files: set[str], *, typing: bool) -> str:
    there = target.partition("/")[0]
    if there not in {name.partition("/")[0] for name in files}:
        there = "__init__"  # a public name, from the package itself
    if there == room:
        if room in STRANGERS and module != f"{room}/__init__":
            return f"{room} never import one another: {target}"
        return ""
    if there in MAY_IMPORT.get(room, set()) or (module, there) in EXCEPTIONS:
        return ""
    if typing and (room, there) in FOR_TYPES_ONLY:
        return ""
    return f"{room} may not import {there}"
