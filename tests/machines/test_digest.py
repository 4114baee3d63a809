"""The checks on a whole body: its announced length and digest."""

from __future__ import annotations

import base64
import hashlib

import pytest

from holdfast._errors import IntegrityError
from holdfast._types import Head
from holdfast.machines.digest import BodyCheck

BODY = b"data: a\n\n"


def coded(algorithm: str, body: bytes = BODY) -> str:
    return base64.b64encode(hashlib.new(algorithm, body).digest()).decode()


def check(headers: dict[str, str], body: bytes = BODY, *, encoding: str = "identity") -> BodyCheck | None:
    head = Head(headers={name.replace("_", "-"): value for name, value in headers.items()}, encoding=encoding)
    made = BodyCheck.of(head, length=True, digest=True)
    if made is not None and made.hasher is not None:
        made.hasher.update(body)
    return made


@pytest.mark.parametrize(
    "headers",
    [
        {"content_length": "9"},
        {"content_digest": f"sha-256=:{coded('sha256')}:"},
        {"repr_digest": f"sha-512=:{coded('sha512')}:"},
        {"digest": f"SHA-256={coded('sha256')}"},
        {"digest": f"md5={coded('md5')}, sha={coded('sha1')}"},
        {"content_md5": coded("md5")},
        {"content_digest": f"unknown=:AAAA:, sha-256=:{coded('sha256')}:"},
        {"content_length": "9", "content_digest": f"sha-256=:{coded('sha256')}:"},
    ],
    ids=str,
)
def test_a_body_is_held_against_what_its_head_announced(headers: dict[str, str]) -> None:
    good = check(headers)
    assert good is not None
    good.end(len(BODY))
    bad = check(headers, BODY + b"x")
    assert bad is not None
    with pytest.raises(IntegrityError) as raised:
        bad.end(len(BODY) + 1)
    assert raised.value.expected != raised.value.actual
    assert raised.value.expected in str(raised.value)


def test_the_strongest_digest_counts() -> None:
    made = check({"content_digest": f"md5=:{coded('md5', b'other')}:, sha-256=:{coded('sha256')}:"})
    assert made is not None
    made.end(len(BODY))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content_length": "nine"},
        {"content_length": "-9"},
        {"content_length": "9" * 30},
        {"content_digest": "sha-256=:!!!:"},
        {"content_digest": "sha-256=:AAAA:"},
        {"content_digest": "crc32c=:AAAA:"},
        {"digest": "nonsense"},
    ],
    ids=str,
)
def test_what_cannot_be_checked_is_not(headers: dict[str, str]) -> None:
    assert check(headers) is None


def test_a_body_in_a_coding_is_left_to_who_undoes_it() -> None:
    assert check({"content_length": "9"}, encoding="gzip") is None


def test_each_check_can_be_left_out() -> None:
    head = Head(headers={"content-length": "9", "content-md5": coded("md5")})
    only_digest = BodyCheck.of(head, length=False, digest=True)
    assert only_digest is not None
    only_digest.hasher.update(BODY)  # type: ignore[union-attr]  # a digest was announced
    only_digest.end(3)
    only_length = BodyCheck.of(head, length=True, digest=False)
    assert only_length is not None
    assert only_length.hasher is None
    assert BodyCheck.of(head, length=False, digest=False) is None
