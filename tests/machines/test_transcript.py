"""The transcript and its replay: any chunking of any answer, cut anywhere and said again, is heard once and whole."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.machines.replay import MAX_HELD, DivergenceError, Replay
from holdfast.machines.tape import BLOCK
from holdfast.machines.transcript import Transcript

RAW = Event()
# A script is what one choice says, in runs of one channel each; ("tool", n) is the arguments of its n-th call.
Script = list[tuple[Any, str]]

words = st.text('ab你😀 \n"{', min_size=1, max_size=12)
channels = st.sampled_from(["reasoning", "text", "refusal", ("tool", 0), ("tool", 1)])


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    runs: Script = []
    for channel, text in draw(st.lists(st.tuples(channels, words), min_size=1, max_size=5)):
        if runs and runs[-1][0] == channel:
            runs[-1] = (channel, runs[-1][1] + text)
        else:
            runs.append((channel, text))
    return runs


def delta(channel: Any, text: str, choice: int = 0, *, first: bool = False, id_: str = "id") -> Delta:
    if isinstance(channel, tuple):
        index = channel[1]
        call = ToolCallDelta(index, f"{id_}{index}" if first else "", f"tool{index}" if first else "", text)
        return Delta(RAW, tool_calls=(call,), choice=choice)
    return plain(channel, text, choice)


def plain(channel: str, text: str, choice: int) -> Delta:
    made = Delta(RAW, choice=choice)
    setattr(made, channel, text)
    return made


@st.composite
def chunkings(draw: st.DrawFn, script: Script, choice: int = 0, id_: str = "id") -> list[Delta]:
    """One way to say a script in deltas, with empty ones among them, and a finish reason at the end."""
    said: list[Delta] = [Delta(RAW, choice=choice)]
    begun: set[Any] = set()
    for channel, text in script:
        ends = sorted({*draw(st.lists(st.integers(1, len(text)), max_size=4)), len(text)})
        for start, end in zip([0, *ends], ends, strict=False):
            said.append(delta(channel, text[start:end], choice, first=channel not in begun, id_=id_))
            begun.add(channel)
        if draw(st.booleans()):
            said.append(Delta(RAW, choice=choice))
    apart = draw(st.booleans())
    if apart:
        said.append(Delta(RAW, finish_reason="stop", choice=choice))
    else:
        said[-1].finish_reason = "stop"
    return said


def interleaved(draw: st.DrawFn, lists: Sequence[list[Delta]]) -> list[Delta]:
    left = [list(deltas) for deltas in lists]
    said = []
    while any(left):
        said.append(draw(st.sampled_from([deltas for deltas in left if deltas])).pop(0))
    return said


def letters(deltas: Sequence[Delta], choice: int = 0) -> list[Any]:
    """What deltas say about one choice, letter by letter."""
    said: list[Any] = []
    for d in deltas:
        if d.choice != choice:
            continue
        for channel in ("reasoning", "text", "refusal"):
            said += [(channel, letter) for letter in getattr(d, channel)]
        for call in d.tool_calls:
            said += [("id", call.index)] if call.id else []
            said += [("name", call.index, call.name)] if call.name else []
            said += [(call.index, letter) for letter in call.arguments]
        said += [("finish", d.finish_reason)] if d.finish_reason else []
    return said


@st.composite
def cut_and_said_again(draw: st.DrawFn) -> tuple[int, list[Delta], list[Delta]]:
    count = draw(st.integers(1, 3))
    plots = [draw(scripts()) for _ in range(count)]
    first = interleaved(draw, [draw(chunkings(plot, n)) for n, plot in enumerate(plots)])
    again = interleaved(draw, [draw(chunkings(plot, n, "new")) for n, plot in enumerate(plots)])
    return count, first, again


@pytest.mark.parametrize("keep", [True, False])
@settings(max_examples=60, deadline=None)
@given(case=cut_and_said_again(), data=st.data())
def test_delivered_and_let_through_are_the_whole_each_letter_once(
    keep: bool,  # noqa: FBT001
    case: tuple[int, list[Delta], list[Delta]],
    data: st.DataObject,
) -> None:
    count, first, again = case
    delivered = first[: data.draw(st.integers(0, len(first)), label="cut")]
    size = data.draw(st.integers(1, 4), label="batch")
    transcript = Transcript(keep=keep)
    transcript.add(delivered)
    replay, new = transcript.replay(), list[Delta]()
    for start in range(0, len(again), size):
        replay.feed(again[start : start + size], new)
    replay.end()
    for choice in range(count):
        assert letters(delivered + new, choice) == letters(first, choice)
    finished = [d.choice for d in delivered + new if d.finish_reason]
    assert sorted(finished) == list(range(count))


@pytest.mark.parametrize("keep", [True, False])
@settings(max_examples=60, deadline=None)
@given(case=cut_and_said_again(), data=st.data())
def test_one_letter_that_differs_lets_nothing_through(
    keep: bool,  # noqa: FBT001
    case: tuple[int, list[Delta], list[Delta]],
    data: st.DataObject,
) -> None:
    _, first, again = case
    cut = data.draw(st.integers(1, len(first)), label="cut")
    delivered = first[:cut]
    transcript = Transcript(keep=keep)
    transcript.add(delivered)
    # Change one letter of what was delivered, or of its ending, where the replay says it.
    said = [(d.choice, letter) for d in delivered for letter in letters([d], d.choice) if letter[0] != "id"]
    if not said:
        return
    choice, letter = said[data.draw(st.integers(0, len(said) - 1), label="letter")]
    before = [s for c, s in said if c == choice]
    place = data.draw(st.sampled_from([n for n, s in enumerate(before) if s == letter]), label="place")
    changed = differing(again, choice, place)
    replay, new = transcript.replay(), list[Delta]()
    with pytest.raises(DivergenceError):
        one_by_one(replay, changed, new)
    assert new == []


def one_by_one(replay: Replay, deltas: Sequence[Delta], out: list[Delta]) -> None:
    for d in deltas:
        replay.feed([d], out)


def differing(deltas: list[Delta], choice: int, place: int) -> list[Delta]:
    """The same deltas, but the place-th thing that a choice says is another."""
    changed: list[Delta] = []
    for d in deltas:
        mine = [s for s in letters([d], d.choice) if s[0] != "id"] if d.choice == choice else []
        if 0 <= place < len(mine):
            d = mutated(d, place)  # noqa: PLW2901 - the one that differs
            place = -1
        elif place >= 0:
            place -= len(mine)
        changed.append(d)
    assert place == -1
    return changed


def mutated(d: Delta, place: int) -> Delta:
    for channel in ("reasoning", "text", "refusal"):
        text = getattr(d, channel)
        if place < len(text):
            return plain(channel, text[:place] + "#" + text[place + 1 :], d.choice)
        place -= len(text)
    if d.tool_calls:
        (call,) = d.tool_calls
        named = len([call.name][: bool(call.name)])
        if place < named:
            return Delta(
                RAW, choice=d.choice, tool_calls=(ToolCallDelta(call.index, call.id, "other", call.arguments),)
            )
        place -= named
        if place < len(call.arguments):
            arguments = call.arguments[:place] + "#" + call.arguments[place + 1 :]
            call = ToolCallDelta(call.index, call.id, call.name, arguments)
            return Delta(RAW, choice=d.choice, tool_calls=(call,))
    return Delta(RAW, choice=d.choice, finish_reason="length")


def replayed(delivered: list[Delta], again: list[Delta], *, keep: bool = True) -> list[Delta]:
    transcript = Transcript(keep=keep)
    transcript.add(delivered)
    replay, new = transcript.replay(), list[Delta]()
    replay.feed(again, new)
    replay.end()
    return new


def test_a_delta_half_of_which_was_delivered_is_handed_over_by_half() -> None:
    new = replayed([Delta(RAW, text="Hel")], [Delta(RAW, text="Hello")])
    assert [d.text for d in new] == ["lo"]


def test_reasoning_and_text_in_one_delta_are_told_apart() -> None:
    again = Delta(RAW, reasoning="Hmm.", text="Yes", finish_reason="stop")
    (new,) = replayed([Delta(RAW, reasoning="Hm")], [again])
    assert (new.reasoning, new.text, new.finish_reason) == ("m.", "Yes", "stop")


def test_two_fragments_of_one_call_in_one_delta_are_both_heard() -> None:
    both = Delta(RAW, tool_calls=(ToolCallDelta(0, "a", "f", '{"x"'), ToolCallDelta(0, "", "", ": 1}")))
    (new,) = replayed([Delta(RAW, tool_calls=(ToolCallDelta(0, "b", "f", '{"x'),))], [both])
    assert "".join(call.arguments for call in new.tool_calls) == '": 1}'
    assert all(not call.id for call in new.tool_calls)


def test_the_id_of_a_call_that_was_not_delivered_comes_through() -> None:
    again = [Delta(RAW, text="x"), Delta(RAW, tool_calls=(ToolCallDelta(0, "call_b"),))]
    assert [d.tool_calls[0].id for d in replayed([Delta(RAW, text="x")], again)] == ["call_b"]


def test_the_id_of_a_call_that_was_delivered_stands() -> None:
    delivered = [Delta(RAW, tool_calls=(ToolCallDelta(0, "call_a", "f"),))]
    again = [
        Delta(RAW, tool_calls=(ToolCallDelta(0, "call_b", "f"),)),
        Delta(RAW, tool_calls=(ToolCallDelta(0, "call_b", "", "{}"),)),
    ]
    (new,) = replayed(delivered, again)
    assert new.tool_calls == (ToolCallDelta(0, "", "", "{}"),)


def test_no_choice_vouches_for_another() -> None:
    delivered = [Delta(RAW, text="left"), Delta(RAW, text="right", choice=1)]
    transcript = Transcript()
    transcript.add(delivered)
    replay, new = transcript.replay(), list[Delta]()
    replay.feed([Delta(RAW, text="left and more"), Delta(RAW, text="ri", choice=1)], new)
    assert new == []
    with pytest.raises(DivergenceError):
        replay.feed([Delta(RAW, text="bs", choice=1)], new)
    assert new == []


def test_a_choice_that_lags_behind_is_not_waited_for_without_end() -> None:
    transcript = Transcript()
    transcript.add([delta("text", "a"), delta("text", "b", 1)])
    replay, out, large = transcript.replay(), list[Delta](), Event(b"", exact=b"x" * (MAX_HELD // 64))
    replay.feed([delta("text", "a"), *(Delta(large, "more") for _ in range(64))], out)
    with pytest.raises(DivergenceError):
        replay.feed([Delta(large, "more")], out)
    assert out == []


def test_a_choice_that_goes_on_after_the_end_it_had_is_another_answer() -> None:
    delivered = [Delta(RAW, text="x", finish_reason="stop")]
    for again in ([Delta(RAW, text="xy")], [Delta(RAW, text="x", finish_reason="length")]):
        with pytest.raises(DivergenceError):
            replayed(delivered, again)


def test_a_choice_that_ends_before_what_it_had_said_is_another_answer() -> None:
    with pytest.raises(DivergenceError):
        replayed([Delta(RAW, text="xy")], [Delta(RAW, text="x", finish_reason="stop")])


def test_a_replay_that_stops_early_has_not_agreed() -> None:
    with pytest.raises(DivergenceError) as raised:
        replayed([Delta(RAW, text="xyz")], [Delta(RAW, text="xy")])
    assert raised.value.position == 2


def test_what_says_nothing_comes_through_behind_all_that_was_delivered() -> None:
    before, inside, behind = Delta(Event(b"1")), Delta(Event(b"2")), Delta(Event(b"3"))
    again = [before, Delta(RAW, text="x"), inside, Delta(RAW, text="y"), behind, Delta(RAW, text="z")]
    new = replayed([Delta(RAW, text="xy")], again)
    assert [(d.raw.payload, d.text) for d in new] == [(b"3", ""), (b"", "z")]


def test_usage_that_was_not_delivered_comes_through_once() -> None:
    usage = Usage(total_tokens=3)
    delivered = [Delta(RAW, text="x", finish_reason="stop"), Delta(RAW, text="y", choice=1)]
    again = [
        Delta(RAW, text="y", choice=1, finish_reason="stop"),
        Delta(RAW, text="x", finish_reason="stop", usage=usage),
    ]
    new = replayed(delivered, again)
    assert [(d.choice, d.finish_reason, d.usage) for d in new] == [(1, "stop", None), (0, None, usage)]
    assert replayed([*delivered[:1], Delta(RAW, usage=usage)], [again[1]]) == []


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize("piece", [1, 7, BLOCK, 10 * BLOCK])
def test_without_the_text_a_replay_is_compared_block_by_block(size: int, piece: int) -> None:
    text = "".join(chr(97 + n * n % 26) for n in range(size))
    delivered = [Delta(RAW, text=text[n : n + 5]) for n in range(0, size, 5)]

    def again(text: str) -> list[Delta]:
        return [Delta(RAW, text=text[n : n + piece]) for n in range(0, len(text), piece)]

    assert "".join(d.text for d in replayed(delivered, again(text + "more"), keep=False)) == "more"
    for place in (0, size // 2, size - 1):
        other = text[:place] + "#" + text[place + 1 :]
        transcript, new = Transcript(keep=False), list[Delta]()
        transcript.add(delivered)
        with pytest.raises(DivergenceError):
            transcript.replay().feed(again(other + "more"), new)
        assert new == []


def test_without_the_text_the_completion_has_what_is_short() -> None:
    transcript = Transcript(keep=False)
    call = ToolCallDelta(0, "call_a", "look", "{}")
    transcript.add([Delta(RAW, text="long"), Delta(RAW, tool_calls=(call,), finish_reason="tool_calls")])
    answer = transcript.completion()
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    assert answer.tool_calls == ()  # one without its arguments would look like a call that has none


def test_items_that_are_no_deltas_are_no_part_of_an_answer() -> None:
    transcript = Transcript()
    transcript.add([Event(b"x")])
    transcript.add([])
    assert transcript.empty
    assert transcript.tokens == 0


def grown(*, keep: bool, tokens: int) -> int:
    transcript = Transcript(keep=keep)
    transcript.add([Delta(RAW, text="warm ") for _ in range(2_000)])
    tracemalloc.start()
    for n in range(tokens):
        transcript.add((Delta(RAW, text=f"{n % 10_000:04} "),))
    assert not transcript.empty  # which folds what is pending
    grew = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return grew


def test_memory_grows_by_less_than_twice_the_text_and_not_at_all_without_it() -> None:
    characters = 5 * 20_000
    assert grown(keep=True, tokens=20_000) < 2 * characters
    # The digests of its blocks stay, and they are about a hundredth.
    assert grown(keep=False, tokens=40_000) - grown(keep=False, tokens=20_000) < characters / 50


def test_its_state_is_json_as_it_stands() -> None:
    first = Transcript()
    first.add([delta(("tool", 0), "{}", first=True), delta("text", "kelp")])
    for transcript in (first, Transcript(before=first)):
        state = transcript.state()
        assert json.loads(json.dumps(state)) == state
        assert Transcript.revived(state, transcript.completion(), keep=True).state()["choices"] == state["choices"]
