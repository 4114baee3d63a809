"""What a dialect owes: the wall between the pipe and what one provider says on the wire.

A dialect is a frozen value. `reader()` gives the machine that turns events into validated deltas and keeps, in an
`Evidence`, all that the verdict rests on; everything else here is data about the provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from holdfast._errors import StatusError, UpstreamError
from holdfast._types import Delta, Event, Head, Usage
from holdfast.machines.cursor import Cursor


@dataclass(slots=True, frozen=True, kw_only=True)
class Timeouts:
    """The four clocks of a stream, in seconds; None leaves one out.

    `open`: from sending a request to its head. `first_token`: from sending a request to the first delta that is not
    empty. `progress`: waiting between two such deltas; comments, pings and empty deltas do not count. `total`: the
    whole call, over all attempts. The first three count per attempt and only while somebody waits.
    """

    open: float | None = None
    first_token: float | None = None
    progress: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for clock in fields(self):
            seconds = getattr(self, clock.name)
            if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
                raise ValueError(f"Timeouts({clock.name}=...) must be above 0 seconds or None, not {seconds!r}")

    def over(self, defaults: Timeouts) -> Timeouts:
        """Fills what is not given here from `defaults`."""
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(defaults, **given)


class Evidence(Protocol):
    """What one answer has proven so far. It outlives an attempt when the next one continues exactly."""

    @property
    def complete(self) -> bool:
        """True once the dialect's terminal evidence has been seen for every choice that was asked for."""

    @property
    def missing(self) -> str:
        """What is still to come, in words for an error message; empty when complete."""

    @property
    def usage(self) -> Usage | None:
        """The answer's usage as far as it was told."""

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""


class DeltaReader(Protocol):
    """The machine of a dialect: a `Transform` from events to deltas."""

    @property
    def evidence(self) -> Evidence:
        """What the verdict will rest on."""

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Validates events. Raises `UpstreamError`, `DecodeError`."""

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated` when nothing proves that the answer is whole, `NotAStream`."""


class Dialect(Protocol):
    """One provider's stream format."""

    @property
    def name(self) -> str:
        """The name users say."""

    @property
    def base_url(self) -> str:
        """Where the provider lives; empty when only the user can know."""

    @property
    def path(self) -> str:
        """The path of the streaming endpoint under the base URL."""

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the API key by convention; empty when there is none."""

    @property
    def default_model(self) -> str:
        """The model that a request without one means; empty when the user must name it."""

    @property
    def timeouts(self) -> Timeouts:
        """The clocks that suit this provider."""

    @property
    def replayable(self) -> bool:
        """True when the same request may be sent again to compare its answer with what was delivered."""

    @property
    def idempotency_header(self) -> str | None:
        """The header that makes a provider answer a repeated request once, where it has one."""

    def headers(self, api_key: str | None) -> dict[str, str]:
        """The headers that authenticate."""

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a request ask for a stream, and for its usage."""

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> DeltaReader:
        """Gives a machine for one attempt; `evidence` is that of the attempt which it continues exactly.

        `end_at_done`: the proven end mark ends the answer, else only the end of the body does.
        """

    def refine(self, error: StatusError) -> StatusError:
        """Reads the provider's own words out of a refused request: message, code, whether trying again helps."""

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document that came where a stream should have been."""
