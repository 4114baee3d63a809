"""Writes docs/dialects.md: `python -m tools.dialect_table`. Every dialect, as its own table and its reader tell of it.

Nothing is typed by hand but the introduction; tests/docs/test_dialects.py keeps the page true.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzz.targets.dialects import families
from holdfast.dialects import DIALECTS, AssistantPrefix, ChatWire, Dialect, Timeouts
from holdfast.dialects._effects import HARMLESS_TOOLS, KEPT
from holdfast.dialects._profiles import marks
from holdfast.dialects.auto import ENDINGS
from holdfast.machines.cursor import Cursor
from tests.sdks.compared import DISAGREEMENTS, ENDPOINTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/dialects.md"
CONSTRAINTS = ROOT / "constraints.txt"

INTRODUCTION = """# Dialects: what each provider says on the wire

`Client("groq")` and `verify("groq")` take these names; `dataclasses.replace()` makes a dialect of your own from one
of them. Each is one file in `src/holdfast/dialects`, which opens with the facts and where they are from.
[CONTRIBUTING.md](../CONTRIBUTING.md#a-new-provider) shows how to add one. Written by `python -m tools.dialect_table`.

"""

WHERE = """## Where they live

The key goes out in the named header; without a base URL there is no one server of that dialect, and you name yours.

| dialect | base URL and path | key | key's header |
|---|---|---|---|
"""

END = """
## What proves an answer whole

`[DONE]` alone proves nothing: servers send it after an error, too. An answer that lacks what stands here is cut, and
its stream is resumed or ends in a typed error.

| dialects | an answer needs |
|---|---|
"""

RUNGS = """
## How a cut answer goes on

*Event ids*: where a server numbers its events, a `Last-Event-ID` goes out with this method. *Cursor*: the provider's
own way to go on exactly. *Replay*: the request is sent again, and compared with what you have. *Prefix*: the model
continues its own words, which you must allow. In this order; each rung that cannot be climbed leaves it to the next.

A request that changes something at the provider is sent once: where its head has come, it is neither replayed, nor sent
with an id or a prefix, nor to another upstream, and it is never hedged. `Dialect.effects()` names it:

- one with {kept}: its answer is added to what these name, or made in it;
- one with a tool that is not known to be harmless. Harmless are those that the caller runs, or that only look something
  up: types that begin with {harmless};
  tools without a type, unless they are `mcp_servers`; a `shell` whose environment is `local`; an `mcp` that requires
  approval `always`, where none is given.

What a stored prompt brings, or a server of its own accord, is not seen. `dataclasses.replace(dialect, kept=...,
harmless_tools=...)` says otherwise.

| dialect | event ids | cursor | replay | prefix |
|---|---|---|---|---|
"""

CLOCKS = """
## Clocks

Seconds, where you give no `timeouts=` of your own: to the head, to the first token, between two tokens, for the whole
call.

| dialects | open | first token | progress | total |
|---|---|---|---|---|
"""

AUTO = """
## `auto`

Tells who answers by the address, or else by the first event that says something. A path that ends as one of these
tells the shape, and the host who speaks it:

| an address that ends with | is, at these hosts | elsewhere |
|---|---|---|
"""

HOSTS = """
A path that ends otherwise may be a base URL, or an endpoint that streams something else: its host tells only those who
look for a base URL. Known by the host alone: {hosts}.

- `Client("auto", base_url=...)` and `holdfast stream --dialect auto` must know whom to ask: they take one of these
  hosts, or the endpoint's full address, and refuse any other, such as `http://localhost:11434/v1`.
- `verify("auto")` and the mounts go by the endpoint that was asked. Where it does not tell, the first event does.
- `assemble()` and `holdfast inspect` have no address: a recording that `Record` made names its dialect, and of other
  bytes the first event tells.

Events tell their shape, and not who speaks it where several do: Messages are read as `anthropic`, Responses as
`openai-responses`, the chat shape by its marks. Events of no shape ({silent}) are read as `sse`, for which
the framing is the proof. Pings and `[DONE]` could be anybody's, and prove nothing. Who knows the dialect names it.
"""

MARKS = """
## Whose bytes these are

The chat shape has many speakers. These have a mark that no other is known to send: {marked}. Where the host does not
tell, the first piece does, and not every piece bears its speaker's mark: the first of {late} may bear none. Nor is
there one in the pieces of {unmarked}, of a gateway that rewrites them, of Azure's models of other makers, or of OpenAI
from before they were padded. All these are read as `openai-compatible`, which forgives more.
"""

LATE = ("mistral", "vllm")
"""Those whose first piece was recorded without the mark that a later one bears."""

SDKS = """
## Whom they agree with

The tests hand the same bytes over TCP to the makers' own SDKs and to Holdfast, transcripts written here and recorded
ones: text, reasoning, tool calls, finish reason and usage are the same. These versions were compared:

| SDK | version | called with | dialects |
|---|---|---|---|
"""

OTHERWISE = """
Where an SDK says otherwise of a stream that it is known to be sent, it is by what the SDK does:

| SDK | up to | what it does |
|---|---|---|
"""


def names(dialects: list[Dialect]) -> str:
    """Gives names for a cell."""
    return ", ".join(f"`{dialect.name}`" for dialect in dialects)


def words(given: Sequence[str]) -> str:
    """Gives words of a request for a sentence."""
    return ", ".join(f"`{word}`" for word in given)


def row(*cells: object) -> str:
    """Gives a row of a table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def where(dialect: Dialect) -> str:
    """Says where a dialect lives, and how it wants its key."""
    place = f"`{dialect.base_url or '...'}{dialect.path}`"
    key = f"`{dialect.key_variable}`" if dialect.key_variable else "-"
    return row(f"`{dialect.name}`", place, key, f"`{dialect.key_header}`" if dialect.key_variable else "-")


def what(rung: object) -> str:
    """Names a rung by what climbs it: by what tells the server so, or by the sentence its class opens with."""
    if rung is None:
        return "-"
    if isinstance(rung, AssistantPrefix):
        told = [f"`{name}: {json.dumps(value)}`" for name, value in {**rung.message, **rung.body}.items()]
        return ", ".join(told) + (f" at `{rung.base}`" if rung.base else "")
    return (inspect.getdoc(type(rung)) or "").partition("\n")[0].partition(": see")[0].rstrip(".:")


def rungs(dialect: Dialect) -> str:
    """Says which rungs of the ladder a dialect has."""
    replay = "yes" if dialect.replayable else "-"
    return row(f"`{dialect.name}`", dialect.event_ids.upper(), what(dialect.cursor), replay, what(dialect.prefix))


def place(host: str) -> str:
    """Writes a host; a leading dot stands for all below."""
    return f"*{host}" if host.startswith(".") else host


def auto() -> str:
    """Says how addresses tell who answers."""
    rows = []
    for name, ending in ENDINGS.items():
        wire = type(DIALECTS[name].wire)
        here = [one for one in DIALECTS.values() if isinstance(one.wire, wire) and one.hosts and one.path]
        told = [f"`{one.name}` at {', '.join(f'`{place(host)}`' for host in one.hosts)}" for one in here]
        rows.append(row(f"`{ending}`", "; ".join(told) or "-", f"`{name}`"))
    alone = [one for one in DIALECTS.values() if one.hosts and not one.path]
    silent = [one for one in DIALECTS.values() if one.wire.question("") is None and one.name not in ENDINGS]
    return "".join([AUTO, *rows, HOSTS.format(hosts=names(alone), silent=names(silent))])


def compared() -> str:
    """Says which versions of the makers' SDKs the tests compare with, and where those say otherwise."""
    pins = dict(line.split("==") for line in CONSTRAINTS.read_text("utf-8").split())
    rows = [
        row(f"`{one.sdk}`", pins[one.sdk], f"`{one.method}`", ", ".join(f"`{name}`" for name in one.dialects))
        for one in ENDPOINTS.values()
    ]
    others = [row(f"`{ENDPOINTS[one.endpoint].sdk}`", one.version, one.why) for one in DISAGREEMENTS]
    return "".join([SDKS, *rows, OTHERWISE, *others])


def page() -> str:
    """Gives the whole page."""
    dialects = list(DIALECTS.values())
    parts = [INTRODUCTION, WHERE, *map(where, dialects), END]
    parts += [row(names(family), family[0].reader(None, Cursor()).evidence.missing) for family in families()]
    parts += [RUNGS.format(kept=words(KEPT), harmless=words(HARMLESS_TOOLS)), *map(rungs, dialects), CLOCKS]
    clocks: dict[Timeouts, list[Dialect]] = {}
    for dialect in dialects:
        clocks.setdefault(dialect.timeouts, []).append(dialect)
    for times, group in clocks.items():
        told = (times.open, times.first_token, times.progress, times.total)
        parts.append(row(names(group), *("-" if seconds is None else f"{seconds:g}" for seconds in told)))
    chat = [dialect for dialect in dialects if isinstance(dialect.wire, ChatWire)]
    marked = [dialect for dialect in chat if dialect.name in marks({})]
    unmarked = [dialect for dialect in chat if dialect not in marked]
    late = " and ".join(f"`{name}`" for name in LATE)
    parts.append(auto())
    parts.append(MARKS.format(marked=names(marked), unmarked=names(unmarked), late=late))
    parts.append(compared())
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
