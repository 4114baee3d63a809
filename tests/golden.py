"""Short event streams, and what https://html.spec.whatwg.org/multipage/server-sent-events.html makes of each.

Written by hand from the standard's sentences, theme by theme; tools/differential.py reads other parsers against them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Said:
    """One dispatched event."""

    data: str
    type: str = "message"
    last_event_id: str = ""


@dataclass(slots=True, frozen=True)
class Case:
    """A body and what it says. `last_event_id` and `retry` (milliseconds) are those a reconnection would go by."""

    theme: str
    rule: str
    body: bytes
    events: tuple[Said, ...] = ()
    last_event_id: str = ""
    retry: int | None = None


def case(theme: str, rule: str, body: bytes, *events: Said | str, last: str = "", retry: int | None = None) -> Case:
    """Makes a case; an event that is just a message is written as its data."""
    said = tuple(Said(e) if isinstance(e, str) else e for e in events)
    return Case(theme, rule, body, said, last, retry)


A1 = Said("a", last_event_id="1")
CONTROLS = "a\x0bb\x0cc\x1cd\x1de\x1ef"
ID = '{"a":"é:1"}'


CASES = (
    case("line ends", "LF ends a line", b"data: a\n\ndata: b\n\n", "a", "b"),
    case("line ends", "CR LF ends a line, once", b"data: a\r\n\r\ndata: b\r\n\r\n", "a", "b"),
    case("line ends", "CR ends a line", b"data: a\r\rdata: b\r\r", "a", "b"),
    case("line ends", "the three may be mixed", b"data: a\n\r\ndata: b\r\n\rdata: c\r\n\n", "a", "b", "c"),
    case("line ends", "LF CR are two ends", b"data: a\n\rdata: b\n\r", "a", "b"),
    case("line ends", "a CR as the last byte closes the event", b"data: a\r\n\r", "a"),
    case("line ends", "blank lines alone say nothing", b"\n\r\n\r\n\r"),
    case("line ends", "no CR stays in a value", b"event: e\r\nid: 7\r\ndata: a\r\n\r\n", Said("a", "e", "7"), last="7"),
    case("no line ends", "U+2028 and U+2029 end nothing", "data: a\u2028b\u2029c\n\n".encode(), "a\u2028b\u2029c"),
    case("no line ends", "U+0085 ends nothing", "data: a\u0085b\n\n".encode(), "a\u0085b"),
    case("no line ends", "VT, FF, FS, GS, RS end nothing", f"data: {CONTROLS}\n\n".encode(), CONTROLS),
    case("no line ends", "a line of FF alone is not blank", b"data: a\n\x0c\ndata: b\n\n", "a\nb"),
    case("no line ends", "a comment does not end at U+2028", ": x\u2028data: leak\n\ndata: a\n\n".encode(), "a"),
    case("byte order mark", "one is dropped at the very beginning", b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", "a", "b"),
    case("byte order mark", "a second one is part of a name", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", "b"),
    case("byte order mark", "later it is part of a name", b"data: a\n\n\xef\xbb\xbfdata: b\n\n", "a"),
    case("byte order mark", "in a value it is a character", b"data: \xef\xbb\xbfa\n\n", "\ufeffa"),
    case("byte order mark", "two thirds of one are bad bytes", b"\xef\xbbdata: a\n\ndata: b\n\n", "b"),
    case("space", "one after the colon is dropped", b"data:a\n\ndata: a\n\n", "a", "a"),
    case("space", "the second one is data", b"data:  a\n\n", " a"),
    case("space", "those at the end are data", b"data: a  \n\n", "a  "),
    case("space", "a tab is data", b"data:\ta\n\n", "\ta"),
    case("space", "a no-break space is data", "data:\u00a0a\n\n".encode(), "\u00a0a"),
    case("space", "types and ids keep it", b"event:  e \nid:  7\ndata: a\n\n", Said("a", " e ", " 7"), last=" 7"),
    case("data", "lines join with LF", b"data: a\ndata: b\ndata: c\n\n", "a\nb\nc"),
    case("data", "an empty line of data is an event", b"data\n\ndata:\n\ndata: \n\n", "", "", ""),
    case("data", "empty lines at the front count", b"data\ndata: a\n\n", "\na"),
    case("data", "empty lines at the end count", b"data: a\ndata\ndata\n\n", "a\n\n"),
    case("data", "without data there is no event", b"event: e\n\n: x\n\ndata: a\n\n", "a"),
    case("data", "colons after the first are data", b"data::a:b\n\ndata: data: c\n\n", ":a:b", "data: c"),
    case("data", "NUL is a character", b"data: a\x00b\n\n", "a\x00b"),
    case("data", "other fields do not split it", b"data: a\nx: y\n: z\ndata: b\n\n", "a\nb"),
    case("event", "it gives the type", b"event: add\ndata: a\n\ndata: b\n\n", Said("a", "add"), "b"),
    case("event", "the last one counts", b"event: a\nevent: b\ndata: x\n\n", Said("x", "b")),
    case("event", "an empty one means message", b"event: a\nevent\ndata: x\n\n", "x"),
    case("event", "it does not outlive its block", b"event: gone\n\ndata: a\n\n", "a"),
    case("id", "it stays until the next", b"id: 1\ndata: a\n\ndata: b\n\n", A1, Said("b", last_event_id="1"), last="1"),
    case("id", "alone it sets the id and is no event", b"id: 1\n\ndata: a\n\n", A1, last="1"),
    case("id", "an empty one takes it back", b"id: 1\ndata: a\n\nid\ndata: b\n\n", A1, "b"),
    case("id", "one with NUL is ignored", b"id: 1\nid: 2\x003\ndata: a\n\n", A1, last="1"),
    case("id", "one that is NUL is ignored", b"id: 1\nid: \x00\ndata: a\n\n", A1, last="1"),
    case("id", "blank lines after it are no events", b"id: 1\ndata: a\n\n\n\n", A1, last="1"),
    case("id", "comments after it are no events", b"id: 1\ndata: a\n\n: ping\n\n: ping\n\n", A1, last="1"),
    case("id", "it may be any text", f"id: {ID}\ndata: a\n\n".encode(), Said("a", last_event_id=ID), last=ID),
    case("id", "without a blank line it does not count", b"data: a\n\nid: 9\n", "a"),
    case("retry", "digits set the time", b"retry: 1500\ndata: a\n\n", "a", retry=1500),
    case("retry", "alone it is no event", b"retry: 1500\n\ndata: a\n\n", "a", retry=1500),
    case("retry", "a sign makes it nothing", b"retry: +5\nretry: -5\ndata: a\n\n", "a"),
    case("retry", "an underscore makes it nothing", b"retry: 1_000\ndata: a\n\n", "a"),
    case("retry", "a space behind makes it nothing", b"retry: 5 \ndata: a\n\n", "a"),
    case("retry", "a fraction makes it nothing", b"retry: 1.5\ndata: a\n\n", "a"),
    case("retry", "only ASCII digits are digits", "retry: １２\nretry: ٣\ndata: a\n\n".encode(), "a"),
    case("retry", "a bad one leaves the last good one", b"retry: 5\n\nretry: x\ndata: a\n\n", "a", retry=5),
    case("comments", "they are ignored", b": x\n:y\n:\ndata: a\n\n", "a"),
    case("comments", "what looks like a field in one is none", b":data: x\n\n: id: 1\ndata: a\n\n", "a"),
    case("names", "case counts", b"Data: x\nDATA: y\nID: 1\nEvent: e\ndata: a\n\n", "a"),
    case("names", "a space before the colon is part of one", b"data : x\ndata: a\n\n", "a"),
    case("names", "a space before one is part of it", b" data: x\ndata: a\n\n", "a"),
    case("names", "unknown ones are ignored", b"datas: x\ndat: y\ntype: t\ndata: a\n\n", "a"),
    case("names", "a page has none that count", b"<html>\n<body>502</body>\n\n"),
    case("UTF-8", "characters of two, three, four bytes", "data: é你💩\n\n".encode(), "é你💩"),
    case("UTF-8", "a bad byte becomes U+FFFD", b"data: a\xffb\n\n", "a\ufffdb"),
    case("UTF-8", "an overlong form is one U+FFFD a byte", b"data: \xc0\xaf\n\n", "\ufffd\ufffd"),
    case("UTF-8", "a surrogate is three U+FFFD", b"data: \xed\xa0\xbd\n\n", "\ufffd\ufffd\ufffd"),
    case("UTF-8", "a cut character does not eat the line end", b"data: \xe2\x82\n\ndata: b\n\n", "\ufffd", "b"),
    case("UTF-8", "an overlong LF ends nothing", b"data: a\xc0\x8ab\n\n", "a\ufffd\ufffdb"),
    case("the end", "an event without its blank line is dropped", b"data: a\n\ndata: b\n", "a"),
    case("the end", "a line without its end is dropped", b"data: a\n\ndata: b", "a"),
    case("the end", "an open type is dropped", b"data: a\n\nevent: e", "a"),
    case("the end", "an open retry is dropped", b"data: a\n\nretry: 5", "a"),
    case("the end", "nothing says nothing", b""),
)  # fmt: skip
