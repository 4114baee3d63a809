"""The Model Context Protocol over Streamable HTTP, https://modelcontextprotocol.io/specification: JSON-RPC in events.

A POST carries one message; the server answers with JSON, or with events that are messages: notifications and requests
of its own, and at last the response to ours, a message with its `id` and a `result` or an `error`. That response proves
the stream whole; its `error` is the caller's to read, and no error of the stream. Each event is a delta as it is.

Up to protocol version 2025-11-25 a server may number its events (an event with an id and empty data comes first then,
so that there is something to resume from) and is resumed with a GET to the same address that bears `Last-Event-ID`;
`retry:` is its say on when. Version 2026-07-28 has no ids: a request whose stream breaks is lost, and goes out again
under a new number only if its caller, who knows what the tool does, wants that. So nothing is ever replayed here.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.sse import SseWire

MCP = Dialect(
    name="mcp",
    wire=SseWire(json_rpc=True),
    fixed_headers={"Accept": "application/json, text/event-stream"},  # a client MUST accept both
    timeouts=Timeouts(open=120, first_token=600, progress=600, total=3600),  # a tool works as long as it works
    event_ids="get",
    replayable=False,
)
