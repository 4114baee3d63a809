"""Running totals of money: a listener that prices every bill it hears, by model and by label.

It is a fold over `Billed` moments and nothing else, so it agrees with the report and the log lines by construction. It
must not grow with what callers name: beyond `max_names` models, and as many values of labels, all others are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from holdfast.machines.settings import check_count, check_kind
from holdfast.moments import Billed, Moment
from holdfast.prices import Cost, Prices

OTHER = "(other)"
"""The name of all that came when there were too many names."""


class Costs:
    """What all streams that it listens to cost: `listeners=[costs]` of a pipe, a client or one stream.

    `labels` names those labels by whose values costs are added up: `costs.by_label["team"]["search"]`.
    """

    __slots__ = ("_labels", "_max_names", "_models", "_prices", "_total")

    def __init__(self, prices: Prices | None = None, *, labels: Sequence[str] = (), max_names: int = 1_000) -> None:
        check_kind("prices", prices if prices is not None else Prices(), Prices, "Prices(...)")
        check_kind("labels", labels, (list, tuple), "a list of names")
        check_count("max_names", max_names)
        self._prices = prices if prices is not None else Prices()
        self._max_names = max_names
        self._total = Cost(currency=self._prices.currency)
        self._models: dict[str, Cost] = {}
        self._labels: dict[str, dict[str, Cost]] = {name: {} for name in labels}

    def __call__(self, moment: Moment) -> None:
        """Takes one moment in; all but bills are nothing to it."""
        if not isinstance(moment, Billed):
            return
        cost = self._prices.cost((moment,))
        self._total += cost
        self._add(self._models, moment.model, cost)
        for label, costs in self._labels.items():
            if label in moment.labels:
                self._add(costs, moment.labels[label], cost)

    def _add(self, costs: dict[str, Cost], name: str, cost: Cost) -> None:
        if name not in costs and len(costs) >= self._max_names:
            name = OTHER
        before = costs.get(name)
        costs[name] = cost if before is None else before + cost

    @property
    def total(self) -> Cost:
        """All of it."""
        return self._total

    @property
    def by_model(self) -> Mapping[str, Cost]:
        """By the models' names, as they were asked for."""
        return MappingProxyType(self._models)

    @property
    def by_label(self) -> Mapping[str, Mapping[str, Cost]]:
        """By label, and its values; streams without a label are in none of its values."""
        return MappingProxyType(self._labels)

    def __str__(self) -> str:
        return str(self._total)
