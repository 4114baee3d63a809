"""llama.cpp's server, https://github.com/ggml-org/llama.cpp/tree/master/tools/server: the chat shape, of any model.

Bytes of a model that are no UTF-8 come as U+FFFD. The last piece bears `timings`. A failure in the middle is `data:
{"error": ...}`; older builds, and llama-box, write a field named `error:`, which a parser must not drop.

A request with `X-Conversation-Id` survives its connection (tools/server/README-dev.md, "Resumable streaming"): the
bytes of its answer stay in a ring of 4 MiB, for 300 seconds after its end, and `GET /v1/stream?conv_id=...&from=BYTES`
gives them from an offset on, then live; one below the ring is refused with 400. Nobody's reading stops nothing:
`DELETE /v1/stream?conv_id=...` does. Servers that do not know the header ignore it, and answer 404 there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit, urlunsplit

from holdfast._types import Event, Request
from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects._prefix import ENDPOINT
from holdfast.dialects.chat import ChatWire


@dataclass(slots=True, frozen=True)
class ByteOffset:
    """Goes on at a byte of the body, which the server keeps under the call's id: see `CursorRung`.

    Whatever stands between may have added bytes that the server does not know, so the last event is asked for again.
    """

    overlaps: bool = True

    def place(self, event: Event, offset: int) -> str:
        """The bytes of the whole body so far."""
        return str(offset)

    def resume(self, request: Request, answer_id: str, place: str) -> Request | None:
        """Asks for the body from an offset on. None for an endpoint or a place that this is not about."""
        url = self._url(request, f"&from={place}")
        return replace(request, method="GET", url=url, body=None) if url and place.isdecimal() else None

    def cancel(self, request: Request, answer_id: str) -> Request | None:
        """Stops the generation, which goes on without a reader."""
        url = self._url(request, "")
        return replace(request, method="DELETE", url=url, body=None) if url else None

    def _url(self, request: Request, more: str) -> str:
        at = urlsplit(request.url)
        root, endpoint, rest = at.path.rpartition(ENDPOINT)
        if not endpoint or rest:
            return ""
        path = root.removesuffix("/v1") + "/v1/stream"
        # What `verify()` sends as `call_header`; one key is one answer, however many connections it takes.
        query = f"conv_id={quote(request.call.key, safe='')}{more}"
        return urlunsplit(at._replace(path=path, query=f"{at.query}&{query}" if at.query else query))


LLAMA_CPP = Dialect(
    name="llama.cpp",
    wire=ChatWire(ask_usage=True),
    base_url="http://localhost:8080/v1",
    path="/chat/completions",
    key_variable="LLAMA_API_KEY",
    needs_model=False,
    timeouts=Timeouts(open=600, first_token=600, progress=120, total=3600),
    call_header="X-Conversation-Id",
    cursor=ByteOffset(),
)
