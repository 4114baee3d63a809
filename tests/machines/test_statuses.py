"""Refused responses: retryable or not, when, and what a person is told."""

from datetime import UTC, datetime

import pytest

from holdfast._types import Head
from holdfast.machines.statuses import retry_after, retryable, status_error

WALL = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529])
def test_may_succeed_when_sent_again(status: int) -> None:
    assert retryable(Head(status=status))
    assert not retryable(Head(status=status, headers={"x-should-retry": "false"}))


@pytest.mark.parametrize("status", [301, 307, 400, 401, 402, 403, 404, 413, 415, 422, 501, 505, 525])
def test_will_not_succeed_when_sent_again(status: int) -> None:
    assert not retryable(Head(status=status))
    assert retryable(Head(status=status, headers={"x-should-retry": " True "}))
    assert not retryable(Head(status=status, headers={"x-should-retry": "maybe"}))


def test_credits_that_come_back_are_waited_for() -> None:
    assert retryable(Head(status=402, headers={"retry-after": "3"}))


@pytest.mark.parametrize("status", [200, 204, 299])
def test_an_answer_is_never_retryable(status: int) -> None:
    assert not retryable(Head(status=status, headers={"x-should-retry": "true"}))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "1500.5"}, 1.5005),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "-1"}, 0.0),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 13:00:30 +0100"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Saturday, 21-Nov-26 12:00:07 GMT"}, 7.0),
        ({"retry-after": "Sat Nov 21 12:00:08 2026"}, 8.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": str(int(WALL.timestamp()) + 36)}, 36.0),
        ({"retry-after": str((int(WALL.timestamp()) + 36) * 1000)}, 36.0),
        ({"retry-after-ms": str((int(WALL.timestamp()) + 36) * 1000)}, 36.0),
        ({"retry-after": "1000000000"}, 0.0),
        ({"retry-after": "999999999"}, 999_999_999.0),
        ({"retry-after": "Sat, 21 Nov 2026 13:00:30 GMT", "date": "Sat, 21 Nov 2026 13:00:00 GMT"}, 30.0),
        ({"retry-after": str(int(WALL.timestamp()) + 3636), "date": "Sat, 21 Nov 2026 13:00:00 GMT"}, 36.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT", "date": "today"}, 30.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "2, 3"}, None),
        ({"retry-after": "Sat, 99 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Sat, 21 Nov 99999999999999999999 12:00:00 GMT"}, None),
    ],
)
def test_reads_how_long_the_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, WALL) == seconds


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "401 Unauthorized: the API key"),
        (402, "402 Payment Required: the account's balance"),
        (429, "429 Too Many Requests: .*slow down"),
        (307, "307 Temporary Redirect: a redirect is not followed"),
        (522, "522: the proxy before"),
        (529, "529: the provider is overloaded"),
        (418, "418 I'm a Teapot$"),
        (499, "answered 499$"),
    ],
)
def test_says_what_to_do(status: int, says: str) -> None:
    with pytest.raises(Exception, match=says):
        raise status_error(Head(status=status), b"", WALL)


def test_keeps_the_body_out_of_the_message() -> None:
    head = Head(status=429, headers={"retry-after": "1.5"})
    error = status_error(head, b'{"error": "you said: secret"}', WALL)
    assert "secret" not in str(error)
    assert str(error).endswith("it asks to wait 1.5 s")
    assert (error.status, error.head, error.retry_after, error.retryable) == (429, head, 1.5, True)
    assert error.body == b'{"error": "you said: secret"}'
