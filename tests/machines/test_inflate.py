"""Content codings: undone exactly, promptly, in bounded pieces; a cut or corrupt body is never a clean end."""

import gzip
import importlib
import random
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from holdfast._errors import DecodeError, MissingExtra, Truncated
from holdfast.machines import inflate
from holdfast.machines.inflate import MAX_PIECE, Inflater, inflater

brotli: Any = importlib.import_module("brotli")
zstd: Any = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

TEXT = "".join(f'data: {{"n": {n}, "s": "你好"}}\n\n' for n in range(3_000)).encode()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Callable[[bytes], Any]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    " Deflate ": raw_deflate,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    "zstd, identity, gzip": lambda data: gzip.compress(zstd.compress(data)),
}
CODINGS = list(PACKERS)


def read(machine: Inflater, data: bytes) -> bytes:
    out = machine.feed(data)
    whole = bytearray(out)
    while out or machine.busy:
        out = machine.feed(b"")
        whole += out
    return bytes(whole)


@pytest.mark.parametrize("coding", CODINGS)
def test_gives_back_what_was_packed_at_any_cut(coding: str) -> None:
    packed = PACKERS[coding](TEXT)
    chance = random.Random(7)
    for sizes in ([len(packed)], [1], [chance.randrange(1, 50) for _ in packed]):
        machine = Inflater(coding)
        out, start = bytearray(), 0
        while start < len(packed):
            size = sizes[start % len(sizes)]
            out += read(machine, packed[start : start + size])
            start += size
        machine.end()
        assert out == TEXT


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_cut_anywhere_is_truncated(coding: str) -> None:
    text = TEXT[:200]
    packed = PACKERS[coding](text)
    for cut in range(1, len(packed)):
        machine = Inflater(coding)
        assert text.startswith(read(machine, packed[:cut]))
        with pytest.raises(Truncated, match="inside its"):
            machine.end()


@pytest.mark.parametrize("coding", CODINGS)
def test_no_body_at_all_is_a_clean_end(coding: str) -> None:
    machine = Inflater(coding)
    assert machine.feed(b"") == b""
    machine.end()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, br"])
def test_a_corrupt_body_is_an_error_that_says_where(coding: str) -> None:
    packed = bytearray(zlib.compress(TEXT) if coding == "deflate" else gzip.compress(TEXT))
    packed[-6 if "gzip" in coding else -1] ^= 0x55  # in the checksum
    machine = Inflater(coding)
    with pytest.raises(DecodeError, match=f"the {coding} coding of the body is corrupt after") as caught:
        read(machine, brotli.compress(bytes(packed)) if "br" in coding else bytes(packed))
    assert caught.value.__cause__ is not None
    assert 0 < caught.value.offset <= len(TEXT)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_flipped_byte_is_never_another_text(coding: str) -> None:
    text = TEXT[:300]
    packed = PACKERS[coding](text)
    for place in range(len(packed)):
        machine = Inflater(coding)
        try:
            out = read(machine, packed[:place] + bytes([packed[place] ^ 0x10]) + packed[place + 1 :])
            machine.end()
        except (DecodeError, Truncated):
            continue
        assert out == text  # some bytes of a gzip head say nothing about the text


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_garbage_is_an_error_and_no_answer(coding: str) -> None:
    machine = Inflater(coding)
    with pytest.raises((DecodeError, Truncated)):  # noqa: PT012 - brotli finds a meaning in most bytes
        read(machine, b"<html>no such coding</html>" * 9)
        machine.end()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_bytes_after_the_end_are_an_error(coding: str) -> None:
    machine = Inflater(coding)
    with pytest.raises(DecodeError):
        read(machine, PACKERS[coding](b"whole") + b"garbage")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_members_are_one_body(coding: str) -> None:
    pack = PACKERS[coding]
    machine = Inflater(coding)
    assert read(machine, pack(b"one") + pack(b"") + pack(b"two")) == b"onetwo"
    machine.end()
    assert read(machine, pack(b"three")) == b"three"
    machine.end()


def test_zeros_after_a_gzip_body_are_padding() -> None:
    machine = Inflater("gzip")
    assert read(machine, gzip.compress(b"x") + bytes(600)) == b"x"
    machine.end()


def flushed_zlib(wbits: int) -> Callable[[bytes], bytes]:
    packer = zlib.compressobj(wbits=wbits)
    return lambda data: packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)


def flushed_brotli() -> Callable[[bytes], Any]:
    packer = brotli.Compressor()
    return lambda data: packer.process(data) + packer.flush()


def flushed_zstd() -> Callable[[bytes], bytes]:
    packer = zstd.ZstdCompressor()
    return lambda data: packer.compress(data, packer.FLUSH_BLOCK)


@pytest.mark.parametrize(
    ("coding", "make"),
    [
        ("gzip", lambda: flushed_zlib(31)),
        ("deflate", lambda: flushed_zlib(15)),
        ("deflate", lambda: flushed_zlib(-15)),
        ("br", flushed_brotli),
        ("zstd", flushed_zstd),
    ],
)
def test_what_the_server_flushed_comes_out_at_once(coding: str, make: Callable[[], Callable[[bytes], bytes]]) -> None:
    pack = make()
    machine = Inflater(coding)
    for n in range(20):
        event = f"data: {n}\n\n".encode()
        assert read(machine, pack(event)) == event


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_bomb_comes_in_bounded_pieces(coding: str) -> None:
    size = 16 * 1024 * 1024
    packed = gzip.compress(gzip.compress(bytes(size))) if coding == "gzip, gzip" else PACKERS[coding](bytes(size))
    machine = Inflater(coding)
    piece = machine.feed(packed)
    longest = total = len(piece)
    while piece:
        piece = machine.feed(b"")
        total += len(piece)
        longest = max(longest, len(piece))
    machine.end()
    assert total == size
    assert longest <= MAX_PIECE


def test_input_that_comes_too_early_waits_its_turn() -> None:
    packed = gzip.compress(bytes(1_000))
    machine = Inflater("gzip", max_piece=100)
    total = len(machine.feed(packed[:-4])) + len(machine.feed(packed[-4:]))
    assert total == 200
    assert total + len(read(machine, b"")) == 1_000
    machine.end()


def test_a_zstd_window_over_eight_mebibytes_is_refused() -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    packed = packer.compress(b"x" * 10) + packer.flush()
    with pytest.raises(DecodeError):
        read(Inflater("zstd"), packed)


@pytest.mark.parametrize("header", ["", "identity", " , Identity"])
def test_nothing_to_undo_is_no_machine(header: str) -> None:
    assert inflater(header) is None


def test_settings_and_headers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="max_piece must be at least 1 byte, not 0"):
        Inflater("gzip", max_piece=0)
    with pytest.raises(DecodeError, match="'compress'") as caught:
        Inflater("compress")
    assert not caught.value.retryable
    with pytest.raises(DecodeError, match="encoded 5 times"):
        Inflater("gzip," * 5)


@pytest.mark.parametrize(("coding", "packages"), [("br", ["brotli"]), ("zstd", ["compression.zstd", "backports.zstd"])])
def test_a_missing_package_is_named_by_its_extra(
    coding: str, packages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"holdfast\[{coding}\]"):
        inflate.inflater(coding)


def test_a_body_that_is_coded_of_nothing_does_not_keep_its_reader() -> None:
    """2 MB of empty members in 5 kB: each call does the work of one piece and comes back."""
    packed = gzip.compress(gzip.compress(b"") * 100_000)
    machine = Inflater("gzip, gzip")
    calls = 1
    assert machine.feed(packed) == b""
    while machine.busy:
        assert machine.feed(b"") == b""
        calls += 1
    assert calls > 25
    machine.end()


def test_a_coding_with_a_long_or_strange_name_is_not_quoted() -> None:
    with pytest.raises(DecodeError) as caught:
        Inflater("x" * 100)
    assert "xxx" not in str(caught.value)
