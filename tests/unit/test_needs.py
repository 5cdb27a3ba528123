"""What the service needs of a cluster: recommended topics and the least rights."""

from __future__ import annotations

import pytest

from vectide.core.needs import dead_letter_topic, literal_prefix, rights


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        (r"^shop\.public\..*", "shop.public."),
        ("^shop.public", "shop"),
        ("^shops*", "shop"),
        ("^shops?-1", "shop"),
        ("^shops+", "shops"),
        ("^shops{0,1}", "shop"),
        (r"^a_b-c\-d$", "a_b-c-d"),
        (r"^shop\d", "shop"),
        ("^(a|b)c", ""),
        ("^abc|abd", ""),
        ("^", ""),
    ],
)
def test_the_right_for_a_pattern_is_on_what_every_match_begins_with(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix


def test_each_right_is_the_least_that_does() -> None:
    found = rights(["shop.products", r"^logs\..*", "^(a|b)"], "readers", "letters", "replays")
    assert [(right.resource, right.name, right.operations, right.prefixed) for right in found] == [
        ("topic", "shop.products", ("READ",), False),
        ("topic", "logs.", ("READ",), True),
        ("topic", "*", ("READ",), False),
        ("group", "readers", ("READ",), False),
        ("topic", "letters", ("WRITE",), False),
        ("topic", "letters", ("READ",), False),
        ("topic", "replays", ("READ", "WRITE"), False),
    ]


def test_a_letter_fits_where_its_record_did() -> None:
    topic = dead_letter_topic("letters", 5_000_000)
    assert int(topic.config["max.message.bytes"]) > 5_000_000
    assert topic.config["message.timestamp.type"] == "LogAppendTime"


def test_more_than_recommended_is_as_good() -> None:
    topic = dead_letter_topic("letters", 1000)
    good = {**topic.config, "max.message.bytes": "999999999", "retention.ms": "-1"}
    assert list(topic.unlike(good)) == []
    assert list(topic.unlike({})) == []
    found = {**topic.config, "retention.ms": "1000", "cleanup.policy": "compact", "max.message.bytes": "?"}
    assert sorted(name for name, _is, _wanted in topic.unlike(found)) == [
        "cleanup.policy",
        "max.message.bytes",
        "retention.ms",
    ]
