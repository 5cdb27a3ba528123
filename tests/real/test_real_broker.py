"""What only a real broker shows: markers of transactions, topics that change, a broker that dies, and
what a provider's bad minutes cost on many partitions."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from tests.chaos.account import Bill
from tests.real.lab import PATIENCE_S, SOON, Lab, Wide
from tests.real.processes import wait_until

from vectide.testing.embedding_server import Fault

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

# --- what is in the log ---------------------------------------------------------------------------------


def test_aborted_transactions_are_not_applied_and_their_markers_are_no_lag(lab: Lab) -> None:
    """Case 118; and invariant 1: offsets have holes."""
    lab.kafka.create_topic(lab.topic)
    service = lab.service()
    producer = lab.producer(**{"transactional.id": lab.name})
    producer.init_transactions(30)
    for rows, ends in ((range(10), "commit"), (range(100, 110), "abort"), (range(10, 20), "commit")):
        producer.begin_transaction()
        for row in rows:
            lab.insert(producer, row)
        (producer.commit_transaction if ends == "commit" else producer.abort_transaction)(30)
    lab.wait_for(range(20))

    def no_lag() -> bool:
        readings = service.readings()
        return readings is not None and (readings.lag, readings.in_flight) == (0, 0)

    wait_until("nothing is left behind the last marker", no_lag, PATIENCE_S)
    assert service.stop() == 0
    assert lab.kafka.lag(lab.name, [lab.topic]) <= 1  # the last marker


def test_retention_that_took_records_is_told(lab: Lab) -> None:
    """Case 111: what is gone is counted and named, the rest is applied."""
    lab.kafka.create_topic(lab.topic)
    lab.produce(range(20))
    service = lab.service()
    lab.wait_for(range(20))
    assert service.stop() == 0
    lab.produce(range(20, 60))
    lab.kafka.delete_before(lab.topic, 0, 40)
    again = lab.service()
    lab.wait_for([*range(20), *range(40, 60)])
    assert again.sample("vectide_source_errors_total", cause="records_lost") == 1
    assert "records_lost" in again.child.log_text()


def test_offsets_beyond_the_end_lose_nothing(lab: Lab) -> None:
    """A topic that was cut back, or a group that was moved by hand."""
    lab.kafka.create_topic(lab.topic)
    lab.produce(range(10))
    lab.kafka.move_group(lab.name, lab.topic, 0, 500)
    lab.service()
    lab.wait_for(range(10))
    lab.produce(range(10, 15))
    lab.wait_for(range(15))
    wait_until("the commits follow", lambda: lab.kafka.lag(lab.name, [lab.topic]) == 0, PATIENCE_S)


# --- topics that change ---------------------------------------------------------------------------------


def test_added_partitions_are_read_from_their_beginning(lab: Lab) -> None:
    lab.kafka.create_topic(lab.topic)
    lab.service()
    lab.produce(range(10))
    lab.wait_for(range(10))
    lab.kafka.add_partitions(lab.topic, 3)
    lab.produce(range(10, 20), partition=2)
    lab.produce(range(20, 30), partition=1)
    lab.wait_for(range(30))


def test_a_topic_created_again_is_another_log(lab: Lab) -> None:
    """Its offsets begin anew, and none of its changes is taken for an old one."""
    lab.kafka.create_topic(lab.topic)
    service = lab.service()
    lab.produce(range(50))
    lab.wait_for(range(50))
    lab.kafka.delete_topic(lab.topic)
    lab.kafka.create_topic(lab.topic)
    lab.produce(range(40, 60))
    lab.wait_for(range(60))
    wait_until("it commits", lambda: lab.kafka.lag(lab.name, [lab.topic]) == 0, PATIENCE_S)
    assert service.stop() == 0


# --- a broker that dies ---------------------------------------------------------------------------------


def test_a_broker_that_is_killed_and_comes_back_is_only_a_pause(lab: Lab) -> None:
    lab.kafka.create_topic(lab.topic)
    service = lab.service()
    lab.produce(range(100))
    lab.wait_for(range(100))
    lab.stack.broker.kill()
    try:
        wait_until("it says so", lambda: service.state() == "waiting", PATIENCE_S)
    finally:
        lab.stack.broker.start_again()
    lab.produce(range(100, 200))
    lab.wait_for(range(200))
    wait_until("it runs", lambda: service.state() == "running", PATIENCE_S)
    wait_until("it commits", lambda: lab.kafka.lag(lab.name, [lab.topic]) == 0, PATIENCE_S)
    assert sorted(lab.paid()) == sorted({f"thing {row}" for row in range(200)})
    assert service.stop() == 0


# --- a provider's bad minutes ---------------------------------------------------------------------------


def test_a_call_that_outlasts_the_poll_interval_costs_no_membership(lab: Lab) -> None:
    """Case 110."""
    lab.kafka.create_topic(lab.topic)
    extra = {**SOON, "max.poll.interval.ms": 7000}
    service = lab.service(VECTIDE_KAFKA__EXTRA=json.dumps(extra))
    lab.produce([0])
    lab.wait_for([0])
    lab.provider.plan(Fault("delay", times=1, every_s=10.0))
    lab.produce([1])
    lab.wait_for([0, 1])
    assert lab.paid() == ["thing 0", "thing 1"]
    for outcome in ("lost", "revoked"):
        assert service.sample("vectide_partition_assignments_total", outcome=outcome) == 0


@pytest.mark.parametrize("status", [429, 500])
def test_five_bad_seconds_of_a_provider_cost_nothing(lab: Lab, status: int) -> None:
    """Case 124: exact, and hardly a call is refused: all workers wait together."""
    wide = Wide(lab)
    lab.service(wide.tables, VECTIDE_KAFKA__EXTRA="")
    wide.go_on(3)
    headers = {"Retry-After": "1"} if status == 429 else {}
    lab.provider.plan(Fault("status", status=status, headers=headers, for_s=5.0))
    wide.go_on(8)
    wait_until("everything is committed", wide.settled, PATIENCE_S)
    assert wide.complaints() == []
    assert Bill().in_vain(wide.history, lab.paid()) == 0
    assert lab.kafka.ends([lab.letters]) == {(lab.letters, 0): 0}
    refused = lab.provider.stats().statuses[str(status)]
    concurrency, waits = 8, 6
    assert 0 < refused <= concurrency * waits


def test_a_killed_process_is_back_at_work_within_15_seconds(lab: Lab) -> None:
    """With the default settings, in the middle of mixed changes."""
    wide = Wide(lab)
    service = lab.service(wide.tables, VECTIDE_KAFKA__EXTRA="")
    wide.go_on(4)
    os.kill(service.child.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    service.child.wait(10)
    on_the_way = wide.on_the_way()
    behind = lab.kafka.lag(lab.name, [lab.topic])
    assert behind > 0
    lab.service(wide.tables, VECTIDE_KAFKA__EXTRA="")
    wait_until("it works", lambda: lab.kafka.lag(lab.name, [lab.topic]) < behind, PATIENCE_S)
    back_s = time.monotonic() - killed_s
    wide.go_on(2)
    wait_until("everything is committed", wide.settled, PATIENCE_S)
    assert wide.complaints() == []
    assert Bill().in_vain(wide.history, lab.paid()) <= on_the_way
    assert back_s < 15
