"""The cursor: what arrives twice is heard once, and a server that contradicts it is never believed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from holdfast._errors import StreamBroken
from holdfast._types import BatchMode, Delta, Event
from holdfast.machines import cursor as module
from holdfast.machines.cursor import Cursor


class Server:
    """Says events as the parser would hand them on: "7:x" has the id 7, ":x" none, "7!x" the id 7 in a block before."""

    def __init__(self) -> None:
        self.cursor = Cursor()
        self.last = ""
        self.begin("start")

    def begin(self, mode: BatchMode) -> None:
        self.cursor.begin(mode)
        self.last = self.cursor.last_event_id

    def say(self, *lines: str, deliver: bool = True) -> list[str]:
        """Gives what was admitted, having delivered it."""
        admitted: list[str] = []
        for line in lines:
            separator = "!" if "!" in line else ":"
            name, _, data = line.partition(separator)
            id_ = name if separator == ":" and (name or line.startswith("::")) else None
            if separator == "!" or id_ is not None:
                self.last = name
            event = Event(data.lstrip(":").encode(), last_event_id=self.last, id=id_)
            if self.cursor.admits(event):
                admitted.append(line)
                if deliver:
                    self.cursor.commit([Delta(event)])
        return admitted


@pytest.fixture
def server() -> Server:
    return Server()


# -- within one connection -----------------------------------------------------------------------


def test_the_same_id_with_the_same_bytes_is_heard_once(server: Server) -> None:
    assert server.say("1:a", "1:a", "2:b", "1:a", "3:c") == ["1:a", "2:b", "3:c"]
    assert server.cursor.dropped == 2


def test_the_same_bytes_under_another_id_or_none_are_news(server: Server) -> None:
    lines = ["1:ha", "2:ha", ":ha", ":ha", "3:ha"]
    assert server.say(*lines) == lines


def test_an_id_over_several_events_is_a_checkpoint_and_equal_events_under_it_are_two(server: Server) -> None:
    lines = ["1:a", "1:ha", "1:ha", "1:ha"]
    assert server.say(*lines) == lines


def test_the_empty_id_names_nothing(server: Server) -> None:
    lines = ["::ha", "::ha"]
    assert server.say(*lines) == lines
    assert server.cursor.last_event_id == ""


def test_the_empty_id_takes_the_last_one_back(server: Server) -> None:
    server.say("1:a", "::b", ":c")
    assert server.cursor.last_event_id == ""


# -- what was delivered ----------------------------------------------------------------------------


def test_only_what_was_handed_on_is_delivered(server: Server) -> None:
    server.say("1:a")
    server.say("2:b", deliver=False)
    assert server.cursor.last_event_id == "1"
    server.begin("continue")
    assert server.say("2:b") == ["2:b"]


def test_an_id_in_a_block_of_its_own_counts_once_something_follows(server: Server) -> None:
    server.say("1:a", "2!b", ":c")
    assert server.cursor.last_event_id == "2"


def test_a_batch_of_anything_else_is_no_event(server: Server) -> None:
    server.cursor.commit(["text", 3])
    assert server.cursor.last_event_id == ""


# -- a continuation --------------------------------------------------------------------------------


@pytest.mark.parametrize("back", range(5))
def test_what_a_continuation_repeats_is_dropped(back: int, server: Server) -> None:
    said = ["1:a", "2:b", "3:c", "4:d"]
    server.say(*said)
    server.begin("continue")
    assert server.say(*said[len(said) - back :], "5:e", "6:f") == ["5:e", "6:f"]
    assert server.cursor.mode == "continue"
    assert server.cursor.dropped == back


def test_what_comes_again_after_something_new_is_dropped(server: Server) -> None:
    server.say("1:a", "2:b")
    server.begin("continue")
    assert server.say("3:c", "2:b", "3:c", "4:d") == ["3:c", "4:d"]


@pytest.mark.parametrize("repeated", [["1:a", ":x", ":y"], [":x", ":y"]], ids=["with its id", "after its id"])
def test_events_without_an_id_come_again_from_the_checkpoint(repeated: list[str], server: Server) -> None:
    server.say("1:a", ":x", ":y")
    server.begin("continue")
    assert server.say(*repeated, ":z", ":x") == [":z", ":x"]


def test_equal_events_without_an_id_are_counted(server: Server) -> None:
    server.say("1:ha", ":ha", ":ha")
    server.begin("continue")
    assert server.say(":ha", ":ha", ":ha") == [":ha"]


def test_a_checkpoint_in_a_block_of_its_own_repeats_its_first_event_too(server: Server) -> None:
    server.say("1!a", ":b")
    server.begin("continue")
    assert server.say(":a", ":b", ":c") == [":c"]


def test_a_shared_checkpoint_is_repeated_in_order(server: Server) -> None:
    server.say("1:a", "1:b", "1:b")
    server.begin("continue")
    assert server.say("1:a", "1:b", "1:b", "1:b", "1:c") == ["1:b", "1:c"]
    assert server.cursor.mode == "continue"


def test_what_a_server_leaves_out_is_not_waited_for(server: Server) -> None:
    server.say("1:a", ":x", ":x")
    server.begin("continue")
    assert server.say("2:b", ":x") == ["2:b", ":x"]


@pytest.mark.parametrize(
    "lines",
    [["1:A", "2:B"], ["2:B"], ["1:a", "2:B"], [":nonsense"]],
    ids=["from the start", "at our id", "after an equal one", "without an id"],
)
def test_an_id_of_ours_over_other_bytes_makes_it_a_replay(lines: list[str], server: Server) -> None:
    server.say("1:a", "2:b", ":x")
    server.begin("continue")
    server.say(*lines, deliver=False)
    assert server.cursor.mode == "replay"
    assert server.cursor.last_event_id == ""


def test_at_an_older_checkpoint_nothing_without_an_id_is_recognised(server: Server) -> None:
    server.say("1:a", ":x", "2:b", ":y")
    server.begin("continue")
    assert server.say("1:a") == []
    server.say(":x", deliver=False)
    assert server.cursor.mode == "replay"


def test_a_contradiction_after_something_new_breaks_the_attempt(server: Server) -> None:
    server.say("1:a", "2:b")
    server.begin("continue")
    server.say("3:c")
    with pytest.raises(StreamBroken, match="other contents"):
        server.say("2:B")


def test_the_place_survives_a_continuation_that_brought_nothing(server: Server) -> None:
    server.say("1:a", "2:b")
    server.begin("continue")
    server.begin("continue")
    assert server.cursor.last_event_id == "2"
    assert server.say("2:b", "3:c") == ["3:c"]


# -- a replay --------------------------------------------------------------------------------------


def test_a_replay_is_compared_whole(server: Server) -> None:
    server.say("1:a", "2:b")
    server.begin("replay")
    assert server.say("1:a", "2:b", "3:c") == ["1:a", "2:b", "3:c"]


def test_no_server_is_asked_to_continue_a_replay_that_has_not_caught_up(server: Server) -> None:
    server.say("1:a", "2:b")
    server.begin("replay")
    server.say("9:a")
    assert server.cursor.last_event_id == ""
    server.cursor.vouched = True
    assert server.cursor.last_event_id == "9"


def test_what_a_replay_repeated_is_known_to_the_next_continuation(server: Server) -> None:
    server.say("1:a", "2:b")
    server.begin("replay")
    server.say("11:a", "12:b", "13:c")
    server.cursor.vouched = True
    server.begin("continue")
    assert server.say("11:a", "12:b", "13:c", "14:d") == ["14:d"]


def test_what_came_without_an_id_is_known_when_it_comes_again_with_one(server: Server) -> None:
    server.say("1:a", ":b", ":c")
    server.begin("continue")
    assert server.say("2:b", "3:c", "4:d") == ["4:d"]


def test_what_came_without_an_id_need_not_come_again(server: Server) -> None:
    server.say("1:a", ":ping")
    server.begin("continue")
    assert server.say("2:b", "3:ping") == ["2:b", "3:ping"]


# -- bounds ----------------------------------------------------------------------------------------


def size(cursor: Cursor) -> int:
    return max(len(cursor._seen), len(cursor._delivered), len(cursor._group))


def test_memory_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDS", 5)
    server.say(*(f"{n}:x" for n in range(50)))
    server.say(*(f":{n}" for n in range(50)))
    assert size(server.cursor) <= 5
    server.cursor.note_stray(b"x" * 20_000)
    server.cursor.note_stray(b"x" * 20_000)
    assert len(server.cursor.stray) <= module.MAX_STRAY + 1


def test_a_checkpoint_too_long_ago_to_remember_is_no_place_to_go_on_from(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IDS", 3)
    server.say("1:a", ":x")
    assert server.cursor.last_event_id == "1"
    server.say(":y", ":z")
    assert server.cursor.last_event_id == ""
    server.say("2:b")
    assert server.cursor.last_event_id == "2"


def test_a_new_attempt_counts_its_own_bytes(server: Server) -> None:
    cursor: Cursor = server.cursor
    cursor.received, cursor.unfinished = 7, 3
    cursor.note_stray(b"<html>")
    cursor.begin("continue")
    left: Sequence[object] = (cursor.received, cursor.unfinished, bytes(cursor.stray), cursor.hasher)
    assert left == (0, 0, b"", None)


def test_the_oldest_ids_are_forgotten_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDS", 16)
    server.say(*(f"{n}:x" for n in range(17)))
    assert server.say("14:x", "16:x") == []
    assert server.say("0:x") == ["0:x"]
