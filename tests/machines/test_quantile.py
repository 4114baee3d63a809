"""The quantile of a window against the plain definition, and a memory for kinds of requests that is bounded."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast._types import Request
from holdfast.machines.quantile import MAX_KINDS, Quantile, Quantiles, kind_of
from tests.properties.profile import examples


class QuantileAgainstModel(RuleBasedStateMachine):
    """The model sorts everything each time."""

    def __init__(self) -> None:
        super().__init__()
        self.quantile = Quantile(0.9, window=7, least=3)
        self.values: list[float] = []

    @rule(value=st.floats(0, 10) | st.sampled_from([1.0, 2.0]))
    def add(self, value: float) -> None:
        self.quantile.add(value)
        self.values.append(value)

    @invariant()
    def it_is_the_nearest_rank_of_the_last_values(self) -> None:
        last = sorted(self.values[-7:])
        assert len(self.quantile) == len(last)
        assert self.quantile.value == (last[math.ceil(0.9 * len(last)) - 1] if len(last) >= 3 else None)


TestQuantileAgainstModel = QuantileAgainstModel.TestCase
TestQuantileAgainstModel.settings = settings(examples(60), stateful_step_count=30)


@given(st.floats(0.01, 0.99), st.lists(st.floats(0, 100), min_size=20, max_size=60))
def test_a_share_of_the_values_is_no_more_than_the_quantile(q: float, values: list[float]) -> None:
    quantile = Quantile(q)
    for value in values:
        quantile.add(value)
    assert quantile.value is not None
    assert sum(value <= quantile.value for value in values) >= q * len(values) - 1e-6
    assert sum(value < quantile.value for value in values) < q * len(values) + 1e-6


@pytest.mark.parametrize(
    "wrong", [{"q": 0}, {"q": 1}, {"q": True}, {"q": 0.5, "least": 0}, {"q": 0.5, "window": 3, "least": 4}]
)
def test_settings_that_cannot_be_are_named(wrong: dict[str, Any]) -> None:
    name = list(wrong)[-1] if len(wrong) < 3 else "window"
    with pytest.raises(ValueError, match=f"{name} must be"):
        Quantile(**wrong)


def asking(model: str, url: str = "https://upstream/v1?key=secret", upstream: str = "") -> Request:
    return Request(url=url, upstream=upstream, body={"model": model})


def test_a_kind_is_an_upstream_an_address_and_a_model_and_holds_no_key() -> None:
    assert kind_of(asking("m", upstream="eu")) == ("eu", "https://upstream/v1", "m")
    assert kind_of(Request(url="http://a", body=b"{}")) == ("", "http://a", "")
    assert kind_of(Request(url="http://a", body={"model": 3})) == ("", "http://a", "")


def test_each_kind_learns_by_itself() -> None:
    learned = Quantiles(0.5, window=10, least=1)
    learned.of(asking("small")).add(0.2)
    learned.of(asking("large")).add(2.0)
    assert learned.of(asking("small")).value == 0.2
    assert learned.of(asking("large")).value == 2.0


def test_the_kind_that_was_asked_for_longest_ago_is_forgotten() -> None:
    learned = Quantiles(0.5, window=10, least=1)
    for number in range(MAX_KINDS):
        learned.of(asking(f"m{number}")).add(1.0)
    learned.of(asking("m0"))
    learned.of(asking("new"))
    assert learned.of(asking("m0")).value == 1.0
    assert learned.of(asking("m1")).value is None
