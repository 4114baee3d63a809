"""What things cost, to the last digit: by hand, by the shipped tables, at the edges of windows, over recordings."""

from __future__ import annotations

import decimal
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import assemble
from holdfast._errors import UsageError
from holdfast.moments import Billed, Report
from holdfast.prices import Cost, Prices
from holdfast.prices._prices import _CURRENCIES, _shipped
from tests import shared

QUIET = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
"""A Wednesday, 20:00 in Beijing: off-peak."""
USD = Prices()


def bill(
    read: int, wrote: int, model: str = "deepseek-v4-pro", dialect: str = "deepseek", at: datetime = QUIET, **more: Any
) -> Billed:
    told = {"input_tokens": read, "output_tokens": wrote, "prompt_tokens": read} | more
    return Billed(model=model, dialect=dialect, sent=at, **told)


def price(*bills: Billed, prices: Prices = USD) -> Decimal | None:
    return prices.cost(bills).amount


# -- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "dollars"),
    [
        # 19 x 0.15 + 320 x 0.003 + 45 x 0.60, of a million
        (bill(339, 45, "deepseek-flash", cached_tokens=320), "0.00003081"),
        # 1000 x 0.66 + 500 x 1.98; thoughts are output
        (bill(1000, 500, reasoning_tokens=400), "0.00165"),
        # 700 x 4 + 100 x 0.20 + 150 x 5 + 50 x 8 + 10 x 20
        (
            bill(
                1000,
                10,
                "claude-opus-5-5",
                "anthropic",
                cached_tokens=100,
                cache_write_tokens=200,
                cache_write_1h_tokens=50,
            ),
            "0.00417",
        ),
        # up to 200,000 tokens of prompt, and one more: everything then, the output too
        (bill(200_000, 1000, "gemini-2.5-pro", "gemini"), "0.26"),
        (bill(200_001, 1000, "gemini-2.5-pro", "gemini"), "0.5150025"),
        (bill(272_000, 0, "gpt-6-sol", "openai", cached_tokens=72_000), "0.4144"),
        (bill(272_001, 100, "gpt-6-sol", "openai-responses"), "1.089504"),
        (bill(100_001, 0, "claude-haiku-5-5", "anthropic", cache_write_tokens=1), "0.050000625"),
        (bill(1_000_000, 1_000_000, "mistral-small-2603", "mistral"), "0.75"),
        (bill(0, 0), "0"),
    ],
    ids=str,
)
def test_an_amount_is_exact(one: Billed, dollars: str) -> None:
    cost = USD.cost((one,))
    assert (cost.amount, cost.answer, cost.currency, cost.estimated) == (Decimal(dollars), cost.amount, "USD", False)


def test_yuan_have_prices_of_their_own() -> None:
    yuan = Prices(currency="CNY")
    assert price(bill(339, 45, "deepseek-flash", cached_tokens=320), prices=yuan) == Decimal("0.0002054")
    peak = datetime(2026, 11, 18, 2, tzinfo=UTC)
    assert price(bill(1000, 100, at=peak, cached_tokens=1000), prices=yuan) == Decimal("0.003")
    assert yuan.cost((bill(1, 1, "gpt-4.1", "openai"),)).unknown == ("gpt-4.1",)  # nothing is converted


def test_a_shared_prompt_is_priced_as_the_whole_one() -> None:
    """What was read again and what was new are two bills of one request: both belong to the prompt's tier."""
    parts = [
        bill(200_001, 0, "gemini-2.5-pro", "gemini", part="again"),
        bill(0, 1000, "gemini-2.5-pro", "gemini", prompt_tokens=200_001),
    ]
    cost = USD.cost(parts)
    assert (cost.again, cost.answer) == (Decimal("0.5000025"), Decimal("0.015"))


# -- DeepSeek's windows --------------------------------------------------------------------------

OFF, PEAK = Decimal("0.66"), Decimal("1.32")
SECOND = timedelta(seconds=1)


def rate(at: datetime) -> tuple[Decimal | None, bool]:
    cost = USD.cost((bill(1_000_000, 0, at=at),))
    return cost.amount, cost.estimated


@pytest.mark.parametrize(("start", "end"), [(1, 4), (6, 10)])
@pytest.mark.parametrize("day", range(16, 21))
def test_peak_begins_and_ends_on_the_second(day: int, start: int, end: int) -> None:
    first, last = datetime(2026, 11, day, start, tzinfo=UTC), datetime(2026, 11, day, end, tzinfo=UTC)
    assert rate(first - SECOND) == rate(last) == (OFF, False)
    assert rate(first) == rate(last - SECOND) == rate(last - timedelta(microseconds=1)) == (PEAK, False)


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 11, 21, 2, tzinfo=UTC),  # a Saturday
        datetime(2026, 11, 22, 7, tzinfo=UTC),  # a Sunday
        datetime(2026, 9, 20, 2, tzinfo=UTC),  # a Sunday on which China works
        datetime(2026, 9, 25, 2, tzinfo=UTC),  # mid-autumn, a Friday
        datetime(2026, 10, 1, 1, tzinfo=UTC),  # the national day, a Thursday
        datetime(2026, 10, 7, 9, 59, 59, tzinfo=UTC),  # its last holiday
        datetime(2026, 11, 18, 5, tzinfo=UTC),  # noon in Beijing
    ],
    ids=str,
)
def test_all_else_is_off_peak(at: datetime) -> None:
    assert rate(at) == (OFF, False)


def test_the_day_after_a_holiday_is_a_day_like_others() -> None:
    assert rate(datetime(2026, 10, 8, 1, tzinfo=UTC)) == (PEAK, False)
    assert rate(datetime(2026, 9, 24, 2, tzinfo=UTC)) == (PEAK, False)


def test_a_year_without_known_holidays_is_an_estimate_where_they_would_count() -> None:
    assert rate(datetime(2027, 1, 4, 2, tzinfo=UTC)) == (PEAK, True)
    assert rate(datetime(2027, 1, 4, 5, tzinfo=UTC)) == (OFF, False)
    assert rate(datetime(2027, 1, 9, 2, tzinfo=UTC)) == (OFF, False)  # a Saturday


def test_a_request_of_another_time_zone_is_judged_by_the_instant() -> None:
    from datetime import timezone  # noqa: PLC0415 - here alone

    assert rate(datetime(2026, 11, 17, 20, 0, tzinfo=timezone(timedelta(hours=-5)))) == (PEAK, False)


def test_prices_hold_from_a_day_on() -> None:
    def of(day: datetime) -> Cost:
        return USD.cost((bill(1_000_000, 0, "gemini-3.8-flash", "gemini", at=day),))

    assert of(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)).amount == Decimal("0.75")
    assert of(datetime(2027, 1, 1, tzinfo=UTC)).amount == Decimal("1.50")
    before = USD.cost((bill(1_000_000, 0, at=datetime(2026, 8, 1, tzinfo=UTC)),))
    assert (before.amount, before.estimated) == (OFF, True)  # what it cost then is not known


# -- which model ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "dialect"),
    [
        ("gpt-4.1-2025-04-14", "openai"),
        ("GPT-4.1", "openai-responses"),
        ("claude-haiku-4-5-20251001", "anthropic"),
        ("claude-haiku-4-5@20251001", "anthropic"),
        ("models/gemini-2.5-flash", "gemini"),
        ("deepseek-v4-flash", "deepseek-anthropic"),
    ],
)
def test_a_dated_name_is_the_model_held_still(model: str, dialect: str) -> None:
    assert USD.knows(model, dialect=dialect)
    assert USD.source(model, dialect=dialect).startswith("https://")


def test_a_dated_name_that_has_a_price_of_its_own_has_that_one() -> None:
    old, new = (price(bill(1_000_000, 0, name, "openai")) for name in ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"))
    assert (old, new) == (Decimal(5), Decimal("2.5"))


@pytest.mark.parametrize(
    ("model", "dialect"),
    [
        ("gpt-4.1", "azure"),  # a deployment may bear any name
        ("gpt-4.1", ""),
        ("gpt-4.1-turbo", "openai"),
        ("gpt-4.1-20259999", "openai"),  # no date
        ("gpt-4.1-2025-02-30", "openai"),
        ("mistral-large-2411", "mistral"),
        ("mistral-large-latest", "mistral"),
        ("deepseek-chat", "deepseek"),
        ("", "openai"),
    ],
)
def test_what_is_not_in_a_table_has_no_price_and_not_a_similar_one(model: str, dialect: str) -> None:
    cost = USD.cost((bill(10, 10, model, dialect), bill(1000, 0)))
    assert (cost.amount, cost.known, cost.unknown) == (None, Decimal("0.00066"), (model,))
    assert "at least 0.00066 USD" in str(cost)
    assert not USD.source(model, dialect=dialect)


def test_tokens_that_were_not_told_have_no_cost() -> None:
    assert price(Billed(model="deepseek-v4-pro", dialect="deepseek", total_tokens=5, sent=QUIET)) is None


def test_where_nobody_is_named_one_maker_alone_must_have_it() -> None:
    assert USD.knows("gpt-4.1")
    assert USD.source("gpt-4.1") == USD.source("gpt-4.1", dialect="openai")
    assert not USD.knows("gpt-4.1", dialect="")  # asked for by a bill that names nobody
    mine = USD.with_("gpt-4.1", input=1, output=1, dialect="resold")
    assert not mine.knows("gpt-4.1")
    assert mine.knows("gpt-4.1", dialect="resold")
    assert USD.with_("gpt-4.1", input=1, output=1).knows("gpt-4.1")


class _Read:
    """What an SDK's stream is once it has been read."""

    response = None

    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize("wrong", [None, 3, _Read(), ["x"], Prices()])
def test_what_is_no_report_has_no_cost_and_not_a_cost_of_nothing(wrong: Any) -> None:
    with pytest.raises(
        UsageError, match=r"cost\(\) takes a Report, .* mounts\.report\(\.\.\.\) gives it, or its bills, not"
    ):
        USD.cost(wrong)
    assert USD.cost(iter([bill(10, 0)])).amount == USD.cost([bill(10, 0)]).amount
    assert USD.cost(Report()).amount == 0


def test_a_currency_that_no_table_has_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'EUR'.*: the library's tables are in USD and CNY; begin with none by shipped="
    ):
        Prices(currency="EUR")
    mine = Prices(currency="EUR", shipped=False).with_("m", input=1, output=1)
    assert price(bill(1_000_000, 0, "m"), prices=mine) == 1
    assert {currency for one in _shipped() for currency in one.plans} == set(_CURRENCIES)


# -- tables of one's own -------------------------------------------------------------------------


def test_a_model_of_ones_own_comes_before_the_shipped_ones() -> None:
    mine = USD.with_("deepseek-v4-pro", input="1", output="2", reasoning="3").with_(
        "local", input=0, output=Decimal("0.5"), dialect="vllm"
    )
    assert price(bill(1_000_000, 1_000_000, reasoning_tokens=500_000), prices=mine) == Decimal("3.5")
    assert price(bill(10, 1_000_000, "local", "vllm"), prices=mine) == Decimal("0.5")
    assert price(bill(10, 10, "local", "sglang"), prices=mine) is None
    assert price(bill(1_000_000, 0)) == OFF  # the others are as they were
    assert not Prices(shipped=False).knows("deepseek-v4-pro", dialect="deepseek")


TABLE = """
source = "https://intranet.example/prices"
read = 2026-11-01

[holidays.here]
2026 = [2026-12-25]

[windows.night]
zone = "Europe/Berlin"
days = ["fri"]
hours = [["22:00", "23:30"]]
except = "here"

[[models]]
names = ["house-model"]
[models.EUR]
input = "1"
output = "2"
during.night = { input = "0.5", output = "1" }
above = [{ tokens = 10, input = "3", output = "4" }]
"""


def test_a_file_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(TABLE, encoding="utf-8")
    mine = Prices.load(path, currency="EUR")
    night = datetime(2026, 12, 18, 21, 30, tzinfo=UTC)  # a Friday in winter, 22:30 in Berlin

    def of(tokens: int, at: datetime) -> Decimal | None:
        return price(bill(tokens, 0, "house-model", "", at=at), prices=mine)

    assert of(10, night) == Decimal("0.000005")
    assert of(11, night) == Decimal("0.000033")
    assert of(10, night + timedelta(hours=1)) == Decimal("0.00001")
    assert of(10, night + timedelta(days=7)) == Decimal("0.00001")  # Christmas
    assert mine.source("house-model") == "https://intranet.example/prices (2026-11-01)"


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [  # hours of Friday the 18th in Berlin, as UTC: an hour earlier
        ('["22:00", "06:00"]', ["18T21:00", "18T23:30", "19T04:59"], ["18T20:59", "19T05:00", "18T04:00", "19T21:30"]),
        ('["18:00", "00:00"]', ["18T17:00", "18T22:59"], ["18T16:59", "18T23:00"]),
        ('["18:00", "24:00"]', ["18T17:00", "18T22:59"], ["18T16:59", "18T23:00"]),
        ('["00:00", "24:00"]', ["17T23:00", "18T12:00", "18T22:59"], ["17T22:59", "18T23:00"]),
    ],
)
def test_hours_may_end_on_the_next_day(hours: str, inside: list[str], outside: list[str], tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(TABLE.replace('["22:00", "23:30"]', hours), encoding="utf-8")
    mine = Prices.load(path, currency="EUR")

    def at_night(when: str) -> bool:
        at = datetime.fromisoformat(f"2026-12-{when}:00+00:00")
        return price(bill(10, 0, "house-model", "", at=at), prices=mine) == Decimal("0.000005")

    assert [at_night(when) for when in inside] == [True] * len(inside)
    assert [at_night(when) for when in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    ("wrong", "right", "why"),
    [
        ('"23:30"', '"24:30"', "prices.toml: night: hours are from .* '24:30' is none"),
        ('"22:00"', '"24:00"', "prices.toml: night: hours are from .* '24:00' is none"),
        ('input = "1"', "input = 1.5", "house-model EUR input must be a text .* not 1.5"),
        ('input = "1"\n', "", "house-model EUR must have a price for 'input'"),
        ('output = "2"\n', 'output = "2"\nimages = "1"\n', "and no 'images'"),
        ('output = "2"\n', 'output = "-2"\n', "output must be a number from 0"),
        ("during.night", "during.noon", "no window is called so"),
        ('except = "here"', 'except = "there"', "no calendar is called so"),
        ('zone = "Europe/Berlin"', 'zone = "Europe/Atlantis"', "its zone is"),
        ('days = ["fri"]', 'days = ["friday"]', "days are mon"),
        ("[models.EUR]", "[models.euro]", "must be a code"),
        ('names = ["house-model"]', "names = []", "must have names"),
        ("[2026-12-25]", '["christmas"]', "a holiday is a date"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_a_reason(wrong: str, right: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    assert wrong in TABLE
    path.write_text(TABLE.replace(wrong, right), encoding="utf-8")
    with pytest.raises(ValueError, match=why):
        Prices.load(path)


@pytest.mark.parametrize("amount", [0.15, True, "cheap", "-1", "NaN", None])
def test_money_is_no_float(amount: Any) -> None:
    with pytest.raises(ValueError, match=r"must (be|have)"):
        USD.with_("m", input=amount, output="1")


# -- the shipped tables --------------------------------------------------------------------------


def test_every_shipped_price_says_where_it_comes_from_and_when_it_was_read() -> None:
    for one in _shipped():
        assert one.source.startswith("https://")
        assert isinstance(one.read, date)
        assert one.dialects
        assert "USD" in one.plans
        for plan in one.plans.values():
            every = [plan.rates, *(rates for _, rates in plan.windows), *(rates for _, rates in plan.above)]
            for rates in every:
                assert 0 < rates.input <= rates.output
                assert (rates.cached or rates.input) <= rates.input <= (rates.cache_write or rates.input)


def test_peak_is_twice_off_peak() -> None:
    for one in _shipped():
        for plan in one.plans.values():
            for _, rates in plan.windows:
                assert (rates.input, rates.output) == (2 * plan.rates.input, 2 * plan.rates.output)
                assert rates.cached == 2 * (plan.rates.cached or 0)


# -- sums ----------------------------------------------------------------------------------------


def test_costs_of_two_currencies_have_no_sum() -> None:
    with pytest.raises(ValueError, match="USD and CNY have no sum"):
        Cost(currency="USD") + Cost(currency="CNY")


def test_a_programs_own_decimal_context_rounds_nothing() -> None:
    with decimal.localcontext(decimal.Context(prec=3)):
        assert price(bill(123_457, 0), bill(1, 1)) == Decimal("0.08148426")


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (Cost(currency="USD", answer=Decimal("1234.5")), "1,234.50 USD"),
        (
            Cost(currency="USD", answer=Decimal("0.1"), again=Decimal("0.02"), estimated=True),
            "about 0.12 USD · 0.02 again",
        ),
        (Cost(currency="CNY", hedge=Decimal("0.000001")), "0.000001 CNY · 0.000001 hedge"),
        (Cost(currency="USD", unknown=("",)), "unknown · no price for a request that names no model"),
    ],
)
def test_a_cost_can_be_read(cost: Cost, said: str) -> None:
    assert str(cost) == said


TOKENS = st.integers(0, 2_000_000)
BILLS = st.builds(
    lambda model, part, cached, fresh, written, wrote, guessed: Billed(
        model=model,
        dialect={"deepseek-flash": "deepseek", "gpt-4.1": "openai"}.get(model, "anthropic"),
        part=part,
        prompt_tokens=cached + fresh + written,
        input_tokens=cached + fresh + written,
        output_tokens=wrote,
        cached_tokens=cached,
        cache_write_tokens=written,
        estimated=guessed,
        sent=QUIET,
    ),
    st.sampled_from(["deepseek-flash", "gpt-4.1", "claude-opus-5-5", "who-knows"]),
    st.sampled_from(["answer", "again", "hedge"]),
    TOKENS,
    TOKENS,
    TOKENS,
    TOKENS,
    st.booleans(),
)
RATES = {  # dollars for a million: fresh, cached, written, output
    "deepseek-flash": ("0.15", "0.003", "0.15", "0.60"),
    "gpt-4.1": ("2", "0.5", "2", "8"),
    "claude-opus-5-5": ("4", "0.2", "5", "20"),
}


@given(st.lists(BILLS, max_size=8))
def test_the_parts_are_the_whole(bills: list[Billed]) -> None:
    cost = USD.cost(bills)
    expected = Fraction(0)
    for one in bills:
        if one.model in RATES:
            fresh, cached, written, wrote = (Fraction(Decimal(rate)) for rate in RATES[one.model])
            read, kept, new = one.input_tokens or 0, one.cached_tokens or 0, one.cache_write_tokens or 0
            expected += (read - kept - new) * fresh + kept * cached + new * written + (one.output_tokens or 0) * wrote
    assert Fraction(cost.known) == expected / 1_000_000
    assert cost.known == cost.answer + cost.again + cost.hedge
    assert (cost.amount is None) == any(one.model not in RATES for one in bills)
    assert cost.estimated == any(one.estimated for one in bills)
    added = Cost(currency="USD")
    for one in bills:
        added += USD.cost((one,))
    assert added == cost == USD.cost(Report(bills=bills))


# -- recordings ----------------------------------------------------------------------------------

PRICED = {
    "deepseek": ("deepseek", "deepseek-v4-pro", ("0.022", "0.66", "1.98")),
    "openai_chat": ("openai", "gpt-4.1", ("0.5", "2", "8")),
    "openai_responses": ("openai-responses", "gpt-4.1", ("0.5", "2", "8")),
    "gemini": ("gemini", "gemini-2.5-flash", ("0.03", "0.30", "2.50")),
}


def recorded() -> list[Any]:
    found = []
    for entry in shared.recordings():
        kind = "deepseek" if entry["provider"] == "deepseek" and entry["api"] == "openai_chat" else entry["api"]
        said = entry["assembled"]
        if kind in PRICED and said["usage"] and said["finish_reasons"] and not said["errors"]:
            found.append(pytest.param(entry, kind, id=entry["file"]))
    return found


@pytest.mark.parametrize(("entry", "kind"), recorded())
def test_what_providers_told_has_a_price(entry: dict[str, Any], kind: str) -> None:
    dialect, model, (cached, fresh, wrote) = PRICED[kind]
    usage = assemble(shared.recorded(entry), dialect if entry["provider"] != "azure" else "azure").usage
    assert usage is not None
    if usage.input_tokens is None or usage.output_tokens is None:
        pytest.skip("its usage was not told in full")
    kept = usage.cached_tokens or 0
    one = bill(usage.input_tokens, usage.output_tokens, model, dialect, cached_tokens=kept)
    by_hand = (
        (usage.input_tokens - kept) * Decimal(fresh) + kept * Decimal(cached) + usage.output_tokens * Decimal(wrote)
    )
    assert price(one) == by_hand / 1_000_000
