"""A seam: however a model continues, what is handed over follows what was delivered, or nothing is handed over."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.machines.replay import DivergenceError
from holdfast.machines.seam import LOOK_BACK, MIN_PREFIX, RESTART, Extension, add_usage, cut_back, join_usage, joint

RAW = Event()
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1e9\U0001f1ea"

texts = st.text("ab 你好,\n\r😀\u0301\u200d", min_size=1, max_size=200)
prose = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat.", "你好", "x,", "\n\n"]), min_size=3, max_size=30)


def pieces(text: str, size: int = 3) -> list[Delta]:
    return [Delta(RAW, text[at : at + size]) for at in range(0, len(text), size)]


def extended(delivered: str, continuation: str, *, cut: int | None = None, size: int = 3) -> str:
    """What is handed over when a model goes on so and finishes."""
    seam = Extension(delivered, cut_back(delivered) if cut is None else cut)
    out: list[Delta] = []
    seam.feed([*pieces(continuation, size), Delta(RAW, finish_reason="stop")], out)
    seam.end(out)
    assert out[-1].finish_reason == "stop"
    return "".join(delta.text for delta in out)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("", ""),
        ("word", ""),
        ("   ", ""),
        ("one two", "one"),
        ("one two ", "one"),
        ("one  two\n\n", "one"),
        ("one\r\n\r\ntwo", "one"),
        ("one, two.", "one,"),
        ("今天天气很好", "今天天气"),
        ("今天天气很好。", "今天天气很"),
        ("今天 好", "今天"),
        ("hello好", "hello"),
        ("今天abc", "今天"),
        ("か\u3099か\u3099か\u3099", "か\u3099か\u3099"),
        (f"see {FAMILY}", "see"),
        (f"好{FAMILY}", "好"),
        ("x" * 100, "x" * 36),
        ("a " + "x" * 100, "a " + "x" * 36),
        ("a" + " " * 100, "a" + " " * 36),
        ("e" * 10 + "e\u0301" * 1 + "x" * 63, "e" * 10),
        ("e" * 10 + FAMILY + "x" * 61, "e" * 10),
        ("e" * 10 + FLAG + "x" * 63, "e" * 10),
        ("e" * 10 + "👍\U0001f3fd" + "x" * 63, "e" * 10),
        ("e" * 10 + "\ud83d\ude00" + "x" * 63, "e" * 10),
        ("e" * 10 + "\r\n" + "x" * 63, "e" * 10),
    ],
)
def test_cuts_before_the_last_word(text: str, prefix: str) -> None:
    assert text[: cut_back(text)] == prefix


@given(texts)
def test_always_cuts_something_off_and_not_much(text: str) -> None:
    cut = cut_back(text)
    assert 0 <= cut < len(text)
    assert text[cut:].strip() or not text.strip() or len(text) - cut >= LOOK_BACK
    if "\u0301" not in text and "\u200d" not in text and "\r" not in text:
        assert len(text) - cut <= LOOK_BACK


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        ("Every wave pulls, and the kelp answers", " kelp answers"),
        ("It holds. Every wave pulls", "holds. Every wave pulls"),  # not at the beginning of a sentence
        ("It holds.\n\nEvery wave pulls", "holds.\n\nEvery wave pulls"),
        ("海藻没有根，它用固着器抓住礁石", "抓住礁石"),
        ("too short", "too short"),
        ("x" * 200, "x" * 64),
    ],
)
def test_the_joint_is_long_enough_and_inside_a_sentence(text: str, tail: str) -> None:
    assert text[joint(text) :].strip() == tail.strip()


@given(texts)
def test_a_joint_cuts_something_off_and_not_much_more_than_its_look_back(text: str) -> None:
    assert 0 <= joint(text) < len(text)
    if "\u0301" not in text and "\u200d" not in text and "\r" not in text:
        assert len(text) - joint(text) <= 2 * LOOK_BACK


DELIVERED = "Once upon a time there was a cat"  # cut before " cat"


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    "begin",
    [
        " cat",
        "cat",  # the space is dropped
        "  cat",  # one is added
        "\n cat",
        " a cat",  # words are said again
        "a cat",
        "was a cat",
        "as a cat",  # not at a word
        " there was a cat",
        DELIVERED,  # all is
        " " + DELIVERED,
        "\n" + DELIVERED,
    ],
)
@pytest.mark.parametrize("new", [" sat.", "s", ""])
def test_hands_over_what_follows_wherever_the_model_begins(begin: str, new: str, size: int) -> None:
    assert extended(DELIVERED, begin + new, size=size) == new


@pytest.mark.parametrize(
    ("continuation", "position"),
    [
        (" dog", 29),
        ("dog", 28),
        (" ca", 31),
        ("   cat", 29),
        ("", 28),
        ("ime there was a dog", 29),
        ("Once upon a time there was a dog", 29),
        ("Once upon a time there", 28),
        (" there was a cow", 30),
    ],
)
def test_a_tail_that_is_not_said_again_is_a_divergence(continuation: str, position: int) -> None:
    seam = Extension(DELIVERED, cut_back(DELIVERED))
    out: list[Delta] = []

    def say() -> None:
        seam.feed(pieces(continuation, 1), out)
        seam.end(out)

    with pytest.raises(DivergenceError) as caught:
        say()
    assert caught.value.position == position
    assert out == []
    with pytest.raises(DivergenceError):  # and it stays one
        seam.feed(pieces(" cat"), out)
    with pytest.raises(DivergenceError):
        seam.end(out)
    assert out == []


def test_diverges_at_the_first_character_and_not_at_the_end() -> None:
    seam = Extension(DELIVERED, cut_back(DELIVERED))
    seam.feed(pieces(" c", 1), [])
    with pytest.raises(DivergenceError):
        seam.feed([Delta(RAW, "o")], [])


@pytest.mark.parametrize(
    ("delivered", "continuation"),
    [
        ("0, 0, 0, 0, 0,", " 0, 0, 0, 1"),  # are these zeros new?
        ("so very very", " very very good"),
        ("The cat. The", "The cat. The dog"),  # an echo, or the dropped space and the cat once more
        (" The cat. The", " The cat. The dog"),
        ("哈" * 20, "哈" * 40),
        ("I saw the cat on the", " the cat on the mat"),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_believes_nothing_where_two_readings_fit(delivered: str, continuation: str, size: int) -> None:
    with pytest.raises(DivergenceError) as caught:
        extended(delivered, continuation, size=size)
    assert caught.value.position == len(delivered)


@pytest.mark.parametrize(
    ("delivered", "continuation", "new"),
    [
        ("0, 0, 0, 0, 0,", " 0, 1", " 1"),
        ("so very very", " very good", " good"),
        ("The cat. The", " The dog", " dog"),
        ("I saw the cat on the", " the cat is", " cat is"),
        ("I saw the cat on the", " the cat on the", None),
        ("I saw the cat on the", " the cat on", " cat on"),
    ],
)
def test_waits_until_one_reading_is_left(delivered: str, continuation: str, new: str | None) -> None:
    if new is None:
        with pytest.raises(DivergenceError):
            extended(delivered, continuation)
    else:
        assert extended(delivered, continuation) == new


@given(prose, st.data())
def test_wherever_a_model_begins_it_is_joined_exactly_or_not_at_all(words: list[str], data: st.DataObject) -> None:
    whole = " ".join(words)
    at = data.draw(st.integers(1, len(whole) - 1), label="at")
    delivered, new = whole[:at], whole[at:]
    cut = cut_back(delivered)
    for begin in {0, cut, data.draw(st.integers(0, cut), label="begin")}:
        try:
            assert extended(delivered, whole[begin:]) == new
        except DivergenceError:
            assert _readings(delivered, whole[begin:]) > 1, "only text that repeats itself is refused"


def _readings(delivered: str, continuation: str) -> int:
    """How many ends of what was delivered the continuation begins with, given or taken one space or newline."""
    cut = cut_back(delivered)
    tail = delivered[cut:]
    ends = {delivered[at:] for at in range(cut + 1)} | {slip + end for slip in " \n" for end in (tail, delivered)}
    if tail[0] in " \n" and tail.strip():
        ends.add(tail[1:])
    return sum(continuation.startswith(end) for end in ends)


def test_no_two_readings_of_any_short_continuation_are_believed() -> None:
    """Exhaustive: whatever is handed over, no other beginning that is allowed explains the continuation."""
    joined = 0
    for delivered in map("".join, product("ab ", repeat=4)):
        cut = cut_back(delivered)
        tail = delivered[cut:]
        for continuation in map("".join, product("ab ", repeat=5)):
            try:
                new = extended(delivered, continuation, size=6)
            except DivergenceError:
                assert _readings(delivered, continuation) != 1
                continue
            joined += 1
            assert continuation.endswith(new)
            begin = continuation[: len(continuation) - len(new)]
            assert begin.endswith(tail.lstrip()), "the tail was said again just before"
            assert _readings(delivered, continuation) == 1
    assert joined > 1_000


@given(st.data())
def test_chunks_do_not_matter(data: st.DataObject) -> None:
    delivered = data.draw(st.text("ab 好", min_size=2, max_size=12))
    continuation = data.draw(st.sampled_from([delivered, delivered[cut_back(delivered) :]])) + data.draw(
        st.text("ab 好", max_size=6)
    )

    def result(size: int) -> str | int:
        try:
            return extended(delivered, continuation, size=size)
        except DivergenceError as error:
            return error.position

    assert result(1) == result(2) == result(len(continuation))


def test_goes_back_no_further_than_its_window() -> None:
    words = " ".join(f"w{n}" for n in range(200))
    cut = cut_back(words)
    near, far = cut - RESTART, cut - RESTART - 1
    assert extended(words, words[near:] + "!") == "!"
    with pytest.raises(DivergenceError):
        extended(words, words[far:] + "!")


def test_holds_neither_the_pieces_of_an_echo_nor_the_time() -> None:
    words = " ".join(f"w{n}" for n in range(20_000))
    assert len(words) > 100_000
    seam = Extension(words, cut_back(words))
    out: list[Delta] = []
    for piece in pieces(words, 4):
        seam.feed([piece], out)
        assert len(seam._held) <= 1
    seam.feed(pieces(" end"), out)
    assert "".join(delta.text for delta in out) == " end"
    assert seam.swallowed == len(pieces(words, 4))


@pytest.mark.parametrize("cut", [-1, 3, 4])
def test_a_cut_leaves_a_tail(cut: int) -> None:
    with pytest.raises(ValueError, match=f"not {cut}"):
        Extension("abc", cut)


def test_shortest_prefix_is_a_number_of_characters() -> None:
    assert MIN_PREFIX == 8


# -- what is not text ----------------------------------------------------------------------------


def fed(*deltas: Delta, keep_reasoning: bool = False) -> tuple[list[Delta], Extension]:
    seam = Extension(DELIVERED, cut_back(DELIVERED), keep_reasoning=keep_reasoning)
    out: list[Delta] = []
    seam.feed(deltas, out)
    return out, seam


CALL = (ToolCallDelta(0, "id", "f", "{}"),)


def test_what_says_nothing_stays_behind_the_words_that_were_said_again() -> None:
    start, inside, stop = Delta(Event(b"1")), Delta(Event(b"2")), Delta(Event(b"3"))
    tail = DELIVERED[cut_back(DELIVERED) :]
    out, _ = fed(start, Delta(RAW, tail[:2]), inside, Delta(RAW, tail[2:]), stop, Delta(RAW, finish_reason="stop"))
    assert [(d.raw.payload, d.finish_reason) for d in out] == [(b"3", None), (b"", "stop")]


def test_reasoning_is_left_out_unless_it_is_wanted() -> None:
    said = [Delta(RAW, reasoning="hm"), Delta(RAW, " cat", "hm"), Delta(RAW, " sat", "so"), Delta(RAW, reasoning="oh")]
    out, seam = fed(*said)
    assert out == [Delta(RAW, " sat")]
    assert seam.swallowed == 3
    out, _ = fed(*said, keep_reasoning=True)
    assert out == [
        Delta(RAW, reasoning="hm"),
        Delta(RAW, "", "hm"),
        Delta(RAW, " sat", "so"),
        Delta(RAW, reasoning="oh"),
    ]


def test_nothing_is_handed_over_before_the_joint() -> None:
    usage = Usage(total_tokens=1)
    out, seam = fed(
        Delta(RAW), Delta(RAW, reasoning="hm"), Delta(RAW, usage=usage), Delta(RAW, " ca"), keep_reasoning=True
    )
    assert (out, seam.caught_up) == ([], False)
    seam.feed([Delta(RAW, "t")], out)
    assert out == [Delta(RAW, usage=usage), Delta(RAW, reasoning="hm")]
    assert seam.caught_up


def test_the_last_usage_of_what_is_left_out_is_kept() -> None:
    first, second, third = (Usage(total_tokens=n) for n in (1, 2, 3))
    out, _ = fed(Delta(RAW, " c", usage=first), Delta(RAW, "a", usage=second), Delta(RAW, "ts", usage=third))
    assert out == [Delta(RAW, usage=second), Delta(RAW, "s", usage=third)]


def test_an_event_stays_reachable_and_pieces_after_the_joint_are_untouched() -> None:
    mixed, later, role = Delta(Event(b"1"), " cats"), Delta(Event(b"2"), " sat"), Delta(Event(b"3"))
    out, _ = fed(mixed, later, role)
    assert out[0].raw is mixed.raw
    assert out[1] is later
    assert out[2] is role


@pytest.mark.parametrize(
    "other",
    [
        Delta(RAW, refusal="no"),
        Delta(RAW, tool_calls=CALL),
        Delta(RAW, finish_reason="length"),
        Delta(RAW, " cat", choice=1),
        Delta(RAW, finish_reason="stop", choice=1),
    ],
)
def test_anything_else_comes_after_the_joint_or_diverges(other: Delta) -> None:
    with pytest.raises(DivergenceError) as caught:
        fed(Delta(RAW, " ca"), other)
    assert caught.value.position == 31
    out, _ = fed(Delta(RAW, " cat"), other)
    assert out == [other]


def test_a_joint_and_the_end_may_come_in_one_piece() -> None:
    out, seam = fed(Delta(RAW, " cat sat", finish_reason="stop", usage=Usage(total_tokens=3)))
    assert out == [Delta(RAW, " sat", finish_reason="stop", usage=Usage(total_tokens=3))]
    seam.end(out)
    assert len(out) == 1


def test_what_is_held_is_let_go_at_the_end_of_the_body_too() -> None:
    seam = Extension("I saw the cat on the", 16)
    out: list[Delta] = []
    seam.feed(pieces(" the cat"), out)
    assert out == []  # it may be on the way to say " the cat on the" again
    seam.end(out)
    assert "".join(delta.text for delta in out) == " cat"


# -- usage ---------------------------------------------------------------------------------------


def test_usage_of_an_answer_is_that_of_its_parts() -> None:
    raw = {"prompt_tokens": 150}
    told = Usage(150, 60, 210, cached_tokens=128, cache_write_tokens=20, reasoning_tokens=5, raw=raw)
    joined = join_usage(100, 50, told, said_again=1)
    assert (joined.input_tokens, joined.output_tokens, joined.total_tokens) == (100, 109, 209)
    assert (joined.cached_tokens, joined.cache_write_tokens, joined.reasoning_tokens) == (100, 0, 5)
    assert joined.estimated
    assert joined.raw is raw
    assert join_usage(None, 50, told).input_tokens == 100


def test_usage_that_nobody_told_stays_untold() -> None:
    assert join_usage(None, 50, Usage()) == Usage(estimated=True)
    assert join_usage(7, 50, Usage()) == Usage(input_tokens=7, estimated=True)


counts = st.none() | st.integers(0, 1_000)


@given(before=counts, delivered=st.integers(0, 1_000), told=st.tuples(*[counts] * 5), again=st.integers(0, 1_000))
def test_the_parts_of_usage_stay_inside_the_whole(
    before: int | None, delivered: int, told: tuple[int | None, ...], again: int
) -> None:
    asked, answered, cached, written, thought = told
    joined = join_usage(before, delivered, Usage(asked, answered, None, cached, written, thought), said_again=again)
    if joined.input_tokens is not None:
        assert 0 <= (joined.cached_tokens or 0) + (joined.cache_write_tokens or 0) <= joined.input_tokens
    if joined.output_tokens is not None:
        assert joined.output_tokens >= delivered
        assert 0 <= (joined.reasoning_tokens or 0) <= joined.output_tokens


# -- an answer that was asked on -----------------------------------------------------------------


def told(asked: int | None, answered: int | None, **more: Any) -> Usage:
    total = None if asked is None or answered is None else asked + answered
    return Usage(input_tokens=asked, output_tokens=answered, total_tokens=total, **more)


def test_usage_over_two_legs_is_the_first_prompt_and_both_outputs() -> None:
    first = told(7, 40, cached_tokens=5, reasoning_tokens=3, raw={"n": 1})
    then = told(45, 20, cached_tokens=44, reasoning_tokens=2, raw={"n": 2})
    assert add_usage(first, then) == told(7, 60, cached_tokens=5, reasoning_tokens=5, raw={"n": 2})


def test_words_that_were_said_again_are_not_the_answers_and_an_estimate() -> None:
    assert add_usage(told(7, 40), told(45, 20), said_again=3) == told(7, 57, estimated=True)
    assert add_usage(told(7, 40), told(45, 2), said_again=9) == told(7, 40, estimated=True)


def test_what_nobody_told_is_not_added_up() -> None:
    assert add_usage(told(None, 40), told(45, 20)) == told(None, 60)
    assert add_usage(told(7, None), told(45, 20)) == told(7, None)
    assert add_usage(told(7, 40), told(None, 20, estimated=True)).estimated
