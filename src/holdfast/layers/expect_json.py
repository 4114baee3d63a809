"""The verdict on answers in JSON: whole on the wire is not whole, where the text does not parse.

It reads nothing before the end and changes nothing: what arrived is handed over as it came, and instead of the clean
end of a broken document there is an `IntegrityError`. It must never judge an answer that was to be no JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from holdfast._core import Call, Source, Stream
from holdfast._errors import EndOfStream, IntegrityError, UsageError
from holdfast._types import Choice, Head, Request
from holdfast.dialects import AUTO, Dialect
from holdfast.dialects._wire import asked
from holdfast.machines.json_text import SchemaCheck, read_json
from holdfast.machines.settings import check_kind

T = TypeVar("T")


@dataclass(slots=True, frozen=True, kw_only=True)
class ExpectJson:
    """Checks that each choice's text is JSON, where the request asks for it. Tool calls and refusals are none.

    `schema=True` also checks it against the schema in the request, and a mapping against that one, whatever the request
    asks for; both need `holdfast[jsonschema]`. An answer is read once, at its end, so `keep=False` cannot be checked:
    `open()` raises `UsageError` then. Raises `IntegrityError` when read, with the broken text in its `.partial`.
    """

    schema: Mapping[str, Any] | bool = False
    _own: SchemaCheck | None = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("schema=", self.schema, (bool, Mapping), "True, False or a mapping")
        if isinstance(self.schema, Mapping):
            object.__setattr__(self, "_own", SchemaCheck(self.schema))

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _ExpectJsonSource(inner, self)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of orders that cannot work."""
        late = [type(layer).__name__ for layer in right]
        return [
            f"{name} belongs left of ExpectJson: only a whole answer can be judged"
            for name in late
            if name in ("Verify", "Retry", "Reconnect", "AutoContinue")
        ]

    def check(self, request: Request) -> _Check | None:
        """Gives what an answer to a request is held against, None where it need not be JSON, or nobody knows yet."""
        dialect, body = request.call.dialect, asked(request)
        words = request.dialect or dialect  # another upstream may answer in another shape than it was asked in here
        wanted = words.wire.asks_json(body) if words is not None and body is not None else False
        if dialect is None or (wanted is False and self._own is None):
            return None
        if not request.call.keep:
            raise UsageError(
                "keep=False keeps a digest of the answer, and JSON is checked whole: leave keep=True, or ExpectJson out"
            )
        schema = self._own
        if schema is None and self.schema and isinstance(wanted, Mapping):
            schema = SchemaCheck(wanted)
        return _Check(dialect, schema)


@dataclass(slots=True)
class _Check:
    dialect: Dialect
    schema: SchemaCheck | None

    def judge(self, call: Call) -> IntegrityError | None:
        """Gives what is wrong with the answer, None where nothing is."""
        for choice in call.answer.completion().choices:
            wrong = self._wrong(choice)
            if wrong:
                return self._error(choice, wrong)
        return None

    def _wrong(self, choice: Choice) -> str:
        stopped = (*self.dialect.filter_reasons, *self.dialect.pause_reasons)
        if choice.tool_calls or choice.refusal or choice.finish_reason in stopped:
            return ""
        value, wrong = read_json(choice.text)
        return wrong or (self.schema.wrong(value) if self.schema is not None else "")

    def _error(self, choice: Choice, wrong: str) -> IntegrityError:
        cut = choice.finish_reason in self.dialect.cut_reasons
        cause = f"; it was cut at a limit (finish_reason {choice.finish_reason}): allow more tokens" if cut else ""
        number = f" of choice {choice.index}" if choice.index else ""
        return IntegrityError(
            f"the answer{number} is not what was asked for",
            expected="JSON" if self.schema is None else "JSON that fits its schema",
            actual=wrong + cause,
            retryable=not cut,  # drawn once more it may come right, but not with the same limit
        )


@dataclass(slots=True)
class _ExpectJsonSource(Generic[T]):
    inner: Source[T]
    layer: ExpectJson

    async def open(self, request: Request) -> Stream[T]:
        check = self.layer.check(request)  # refuses what cannot be checked before anything is sent
        stream = await self.inner.open(request)
        call = request.call
        if check is None and call.dialect is not None and call.dialect is not AUTO:
            return stream
        records, call.recorded = not call.recorded, True
        return _ExpectJsonStream(stream, request, self.layer, records)


@dataclass(slots=True)
class _ExpectJsonStream(Generic[T]):
    inner: Stream[T]
    request: Request
    layer: ExpectJson
    records: bool  # nobody left of us takes the answer down
    end: Exception | None = None

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[T]:
        if self.end is not None:
            raise self.end
        try:
            batch = await self.inner.receive()
        except EndOfStream as end:
            self.end = self._judged() or end
        else:
            if self.records:
                self.request.call.answer.add(batch)
            return batch
        raise self.end

    def _judged(self) -> Exception | None:
        call = self.request.call
        try:
            check = self.layer.check(self.request)
            return check.judge(call) if check is not None else None
        except UsageError as error:
            return error

    async def aclose(self) -> None:
        self.end = self.end or UsageError("this stream is closed")
        await self.inner.aclose()
