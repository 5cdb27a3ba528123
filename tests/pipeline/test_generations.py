"""A new configuration is rolled out: processes with different mappings of a table, one after the other."""

from dataclasses import replace

from tests.pipeline.pump import FIRST, PRODUCTS, FaultyStore, Log, Pump, delete, row, upsert

from vectide.core.lifecycle import State
from vectide.core.mapping import MetadataField, TableMapping
from vectide.core.model import Change
from vectide.core.template import Template

LATER = replace(
    PRODUCTS,
    template=Template.parse("{title}: {body}"),
    metadata=(*PRODUCTS.metadata, MetadataField("$op", "op")),
)
OLD_TEXT, NEW_TEXT = "lamp\nbright", "lamp: bright"


class Rollout:
    """A log, a store, and the processes that have its partition in turn."""

    def __init__(self) -> None:
        self.log = Log()
        self.store = FaultyStore(PRODUCTS)
        self.owner: Pump | None = None

    def process(self, mapping: TableMapping, now_s: float) -> Pump:
        """One that starts now, and has not got the partition yet."""
        pump = Pump(self.log, store=self.store, tables=[mapping], now_s=now_s)
        pump.source.next_poll.clear()
        return pump

    def gives(self, pump: Pump, *changes: Change) -> None:
        """The group gives it the partition, and these changes follow."""
        if self.owner is not None:
            self.owner.source.lose(FIRST)
        self.owner = pump
        self.log.append(*changes)
        pump.source.next_poll.append(lambda: pump.source.assign(FIRST))

    def runs(self, pump: Pump, *changes: Change) -> None:
        self.gives(pump, *changes)
        pump.run()

    @property
    def texts(self) -> dict[object, str | None]:
        return {key.key: text for key, text in self.store.texts().items()}


def lamp(price: int) -> Change:
    return upsert(1, "lamp", "bright", price)


def sold(*pumps: Pump) -> list[str]:
    return [text for pump in pumps for text in pump.provider.sold]


def test_processes_with_different_mappings_do_not_alternate_on_a_row() -> None:
    """The partition goes to and fro; the row goes over once, and no change of it is lost."""
    group = Rollout()
    old, new = group.process(PRODUCTS, 1000), group.process(LATER, 2000)
    group.runs(old, lamp(1))
    for price in (2, 4, 6):
        group.runs(new, lamp(price))
        group.gives(old, lamp(price + 1))
        old.run_for(30)
        assert group.store.points()[row(1)].metadata == {"price": price, "op": "u"}
        assert old.stream.status.state is State.HALTED
        assert "later mapping" in old.stream.status.reason
    group.runs(new)
    assert group.store.points()[row(1)].metadata == {"price": 7, "op": "u"}
    assert sold(old, new) == [OLD_TEXT, NEW_TEXT]


def test_a_process_with_the_older_mapping_goes_on_with_what_no_later_one_has_written() -> None:
    group = Rollout()
    old, new = group.process(PRODUCTS, 1000), group.process(LATER, 2000)
    group.runs(old, lamp(1), upsert(2, "chair"), upsert(3, "table"))
    group.runs(new, lamp(2), delete(3))
    group.runs(old, upsert(2, "armchair"), upsert(3, "desk"), delete(1))
    assert set(group.texts.values()) == {"armchair", "desk"}
    assert old.stream.status.state is State.RUNNING


def test_the_earlier_mapping_comes_back_with_processes_that_start_with_it() -> None:
    """The new configuration is taken back."""
    group = Rollout()
    group.runs(group.process(LATER, 2000), lamp(1))
    back = group.process(PRODUCTS, 3000)
    group.runs(back, lamp(2))
    assert (list(group.texts.values()), sold(back)) == ([OLD_TEXT], [OLD_TEXT])


def test_processes_of_one_mapping_take_turns_whenever_they_started() -> None:
    group = Rollout()
    first, second = group.process(PRODUCTS, 1000), group.process(PRODUCTS, 2000)
    for price in range(4):
        group.runs(second, lamp(price))
        group.runs(first, lamp(price + 1))
    assert sold(first, second) == [OLD_TEXT]


def test_who_is_left_with_a_table_takes_it_over() -> None:
    """A trial of the new configuration was ended: its process is gone, and nobody else has its mapping."""
    group = Rollout()
    old = group.process(PRODUCTS, 1000)
    group.runs(group.process(LATER, 2000), lamp(1))
    group.gives(old, lamp(2))
    old.run_for(290)
    assert list(group.texts.values()) == [NEW_TEXT]
    old.run()
    assert (list(group.texts.values()), sold(old)) == ([OLD_TEXT], [OLD_TEXT])
    old.run_for(2)
    assert old.stream.status.state is State.RUNNING
    assert sum(event == "mapping_taken_over" for event, _ in old.events.lines) == 1
    group.runs(old, lamp(3), upsert(1, "other lamp"))
    assert list(group.texts.values()) == ["other lamp"]


def test_patience_begins_anew_when_rows_of_a_later_mapping_were_long_out_of_sight() -> None:
    group = Rollout()
    old, new = group.process(PRODUCTS, 1000), group.process(LATER, 2000)
    group.runs(new, lamp(1))
    group.gives(old, lamp(2))
    old.run_for(100)
    group.runs(new, lamp(3))
    old.run_for(1000)
    group.gives(old, lamp(4))
    old.run_for(280)
    assert list(group.texts.values()) == [NEW_TEXT]
