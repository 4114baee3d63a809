"""The fault vocabulary: every way a reply is known to go wrong, one typed value each.

A fault is *evident* when it leaves a trace (or does no harm at all): under it a client must be exact or raise. The
others are silent corruption, which nothing on the wire gives away unless there are ids, sequence numbers or digests.
`final` ones tell the client not to come again. Each module has those that strike at one thing.
"""

from __future__ import annotations

from holdfast.testing.faults._fault import BaseFault, Fault, Healthy
from holdfast.testing.faults._parts import COMMENT, DONE
from holdfast.testing.faults.contents import (
    EndlessLine,
    ErrorEvent,
    FlippedBit,
    GaveUp,
    HalfSurrogate,
    TornEvent,
    WrongType,
)
from holdfast.testing.faults.cuts import (
    BadChunk,
    CleanCut,
    ClosedMidStream,
    CutAtByte,
    CutInsideEvent,
    EarlyDone,
    FinInsideChunk,
    GzipCut,
    LengthTooLong,
    LengthTooShort,
    ResetAtEnd,
    ResetMidStream,
    WrongDigest,
)
from holdfast.testing.faults.heads import (
    EarlyHints,
    EmptyBody,
    HtmlPage,
    JsonAnswer,
    JsonError,
    NoAnswer,
    Refused,
    SplitHead,
    WrongCharset,
)
from holdfast.testing.faults.legal import (
    BigEvent,
    ByteOrderMark,
    Comments,
    Framed,
    Gzipped,
    LineEnds,
    NoDone,
    SplitCharacters,
)
from holdfast.testing.faults.resuming import (
    AnotherAnswer,
    IdWithNul,
    IgnoresLastEventId,
    RepeatedAfterResume,
    ResumeRefused,
)
from holdfast.testing.faults.silent import (
    DoneInText,
    DroppedEvent,
    IdRewound,
    InvalidUtf8,
    ReorderedEvents,
    RepeatedEvents,
)
from holdfast.testing.faults.timing import (
    Drip,
    Latency,
    SlowThenDead,
    StallAtEnd,
    StallBehindEmptyDeltas,
    StallBehindPings,
    StallMidStream,
    Throttle,
    ThroughputCollapse,
)

VOCABULARY: tuple[BaseFault, ...] = (
    *(NoAnswer(how="reset"), NoAnswer(how="close"), NoAnswer(how="stall"), NoAnswer(how="garbage")),
    *(Refused(status=status) for status in (500, 502, 503, 529)),
    Refused(status=429, retry_after=0),
    Refused(status=429, retry_after=61),
    Refused(status=429, code="insufficient_quota"),
    *(Refused(status=status) for status in (307, 400, 401, 402)),
    *(HtmlPage(), EmptyBody(), JsonError(), JsonError(code="invalid_api_key"), JsonAnswer()),
    *(EarlyHints(), SplitHead(), WrongCharset()),
    *(ResetMidStream(), ClosedMidStream(), FinInsideChunk(), BadChunk(), ResetAtEnd(), ResetAtEnd(done=False)),
    *(CleanCut(), EarlyDone(), CutInsideEvent(), GzipCut(), LengthTooShort(), LengthTooLong()),
    *(LengthTooLong(after=None), WrongDigest()),
    *(StallMidStream(), StallBehindPings(), StallBehindEmptyDeltas(), StallAtEnd(), StallAtEnd(done=False)),
    *(Latency(), Drip(), Throttle(), SlowThenDead(), ThroughputCollapse()),
    *(TornEvent(), FlippedBit(), WrongType(), HalfSurrogate(), ErrorEvent(), ErrorEvent(done=False)),
    *(ErrorEvent(code="content_filter"), GaveUp(), EndlessLine()),
    *(InvalidUtf8(), DroppedEvent(), ReorderedEvents(), RepeatedEvents(), DoneInText(), IdRewound()),
    FlippedBit(where="word"),
    *(IdWithNul(), IgnoresLastEventId(), ResumeRefused(status=204), ResumeRefused(status=400), ResumeRefused()),
    *(AnotherAnswer(), RepeatedAfterResume()),
    *(SplitCharacters(), ByteOrderMark(), LineEnds(ends="CR"), LineEnds(), Comments(), BigEvent(), NoDone(), Gzipped()),
    *(Framed(by="length"), Framed()),
)
"""One example of every fault, those of several kinds once a kind. `Healthy` is not among them."""
EVIDENT = tuple(fault for fault in VOCABULARY if fault.evident and not fault.final)
"""The faults under which a client can be exact in the end, and must never be silent."""
FINAL = tuple(fault for fault in VOCABULARY if fault.evident and fault.final)
"""The faults that no other try mends: a typed error is all that can come of them."""
SILENT = tuple(fault for fault in VOCABULARY if not fault.evident)
"""The faults that leave no trace where there are no ids, sequence numbers or digests."""
KINDS: tuple[type[BaseFault], ...] = (Healthy, *dict.fromkeys(map(type, VOCABULARY)), CutAtByte)
"""Every type of fault, once. `CutAtByte` is for proofs that go through every place: its examples are the other cuts."""

__all__ = [
    "COMMENT",
    "DONE",
    "EVIDENT",
    "FINAL",
    "KINDS",
    "SILENT",
    "VOCABULARY",
    "AnotherAnswer",
    "BadChunk",
    "BigEvent",
    "ByteOrderMark",
    "CleanCut",
    "ClosedMidStream",
    "Comments",
    "CutAtByte",
    "CutInsideEvent",
    "DoneInText",
    "Drip",
    "DroppedEvent",
    "EarlyDone",
    "EarlyHints",
    "EmptyBody",
    "EndlessLine",
    "ErrorEvent",
    "Fault",
    "FinInsideChunk",
    "FlippedBit",
    "Framed",
    "GaveUp",
    "GzipCut",
    "Gzipped",
    "HalfSurrogate",
    "Healthy",
    "HtmlPage",
    "IdRewound",
    "IdWithNul",
    "IgnoresLastEventId",
    "InvalidUtf8",
    "JsonAnswer",
    "JsonError",
    "Latency",
    "LengthTooLong",
    "LengthTooShort",
    "LineEnds",
    "NoAnswer",
    "NoDone",
    "Refused",
    "ReorderedEvents",
    "RepeatedAfterResume",
    "RepeatedEvents",
    "ResetAtEnd",
    "ResetMidStream",
    "ResumeRefused",
    "SlowThenDead",
    "SplitCharacters",
    "SplitHead",
    "StallAtEnd",
    "StallBehindEmptyDeltas",
    "StallBehindPings",
    "StallMidStream",
    "Throttle",
    "ThroughputCollapse",
    "TornEvent",
    "WrongCharset",
    "WrongDigest",
    "WrongType",
]
