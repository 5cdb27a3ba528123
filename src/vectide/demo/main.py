"""``vectide demo``: the service at its main job, from the first event to the verdict."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from confluent_kafka import KafkaException

from vectide.core.model import Record
from vectide.demo import acts, catalogue
from vectide.demo.crash import crash
from vectide.demo.keepers import DEFAULT_STORE, check_packages, variables_of_your_own
from vectide.demo.play import DemoFailed, Play
from vectide.demo.screen import Screen
from vectide.demo.stage import PARTITIONS, Stage, open_stage
from vectide.ports import AdapterError, MissingExtra
from vectide.testing.broker import read_topic

DEFAULT_SECONDS: Final = 20.0
DEFAULT_SEED: Final = 7
#: The embedded broker keeps a few megabytes of each partition.
MAX_SECONDS: Final = 120.0

#: Exit codes.
VERIFIED, NOT_VERIFIED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

_REAL_CLUSTER: Final = {
    "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "broker-1:9092,broker-2:9092",
    "VECTIDE_KAFKA__GROUP_ID": "vectide",
    "VECTIDE_KAFKA__EXTRA": '{"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", '
    '"sasl.username": "vectide", "sasl.password": "..."}',
    "VECTIDE_EMBEDDER__KIND": "openai",
    "VECTIDE_EMBEDDER__MODEL": "text-embedding-3-small",
    "VECTIDE_EMBEDDER__API_KEY_FILE": "/run/secrets/openai",
    "VECTIDE_DLQ__TOPIC": "vectide.dlq",
    "VECTIDE_TABLES_FILE": "/etc/vectide/tables.yaml",
}


def run(
    *,
    seconds: float = DEFAULT_SECONDS,
    seed: int = DEFAULT_SEED,
    keep: bool = False,
    plain: bool | None = None,
    store: str = DEFAULT_STORE,
) -> int:
    """Stream a product catalogue into a store with embedded parts only, kill the worker, verify the store.

    ``seconds``: length of the live traffic, which ``seed`` makes repeatable. ``keep``: leave the folder with
    logs, tables and the whole topic, and name it. ``plain``: no colour and nothing redrawn; None: when
    standard output is no terminal. ``store``: the kind of the store. Returns the exit code: 0 verified, 1
    not, 2 cannot run here, 130 interrupted. Everything that was started has ended on return.
    """
    screen = Screen(plain=plain)
    try:
        check_packages(store)
        if not 0 < seconds <= MAX_SECONDS:
            raise ValueError(f"the live traffic may last up to {MAX_SECONDS:g} seconds, not {seconds:g}")
    except (MissingExtra, ValueError) as error:
        screen.say(str(error), style="red")
        return UNUSABLE
    try:
        with _terminating_as_interrupt(), _folder(screen, keep=keep) as folder, ExitStack() as stack:
            return _perform(screen, open_stage(stack, folder, seed, store), store, seconds, keep=keep)
    except KeyboardInterrupt:
        screen.say("Interrupted; everything has been stopped.", style="yellow")
        return INTERRUPTED
    except (RuntimeError, TimeoutError, KafkaException, AdapterError) as error:
        # What the parts raise when they do not start or do not go on.
        screen.check(False, str(error))
        return NOT_VERIFIED


def _perform(screen: Screen, stage: Stage, store: str, seconds: float, *, keep: bool) -> int:
    began_s = time.monotonic()
    play = Play(stage, screen)
    _introduce(screen, stage)
    try:
        acts.snapshot(play)
        acts.live(play, seconds)
        crash(play)
        acts.verdict(play)
    except (DemoFailed, TimeoutError):
        screen.say("", "The worker's last words:", *stage.worker.last_words(), style="red")
        raise
    took_s = time.monotonic() - began_s
    if keep:
        _dump(stage, stage.folder)
    if not play.passed:
        screen.say("", f"NOT VERIFIED, after {took_s:.0f} s.", style="bold red")
        return NOT_VERIFIED
    screen.say("", f"Verified, after {took_s:.0f} s.", style="bold green")
    _what_next(screen, store)
    return VERIFIED


def _introduce(screen: Screen, stage: Stage) -> None:
    screen.act(
        "vectide demo",
        "The service as you would run it, between parts that live only as long as this demo: the Kafka "
        f"broker that librdkafka carries inside, a real {stage.keeper.name}, a small model.",
    )
    screen.facts(
        {
            "Kafka": f"librdkafka's embedded broker, pid {stage.broker.pid}, topic {catalogue.TOPIC} "
            f"with {PARTITIONS} partitions",
            stage.keeper.name: stage.keeper.told,
            "model": f"{stage.window.embedder.space}, {stage.window.embedder.dimensions} dimensions, local",
        }
    )
    screen.say("", "The worker is a process of its own, told by these variables alone:", "")
    screen.variables(
        stage.environment,
        {
            "VECTIDE_KAFKA__EXTRA": "only for the embedded broker: "
            "its classic groups form slowly, its fetches do not wake up"
        },
    )
    screen.code("vectide run")
    screen.say("", "and by the tables file:", "")
    screen.code(catalogue.TABLES)


def _what_next(screen: Screen, store: str) -> None:
    screen.act(
        "What next", "The same command on your own cluster, with other variables (see: vectide config):"
    )
    screen.variables({**_REAL_CLUSTER, **variables_of_your_own(store)})
    screen.code("vectide check     # connects to everything and writes nothing\nvectide run")


@contextmanager
def _folder(screen: Screen, *, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vectide-demo-"))
    try:
        yield folder
    finally:
        if keep:
            screen.say(f"Kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _dump(stage: Stage, folder: Path) -> None:
    """The worker's variables, and the whole topic as a recording that ``vectide preview`` reads."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in stage.environment.items()]
    (folder / "worker.env").write_text("".join(lines))
    with (folder / "topic.jsonl").open("w") as topic:
        for record in read_topic(stage.broker.bootstrap, catalogue.TOPIC):
            topic.write(json.dumps(_recorded(record)) + "\n")


def _recorded(record: Record) -> dict[str, Any]:
    """As :func:`vectide.testing.recordings.read_recording` wants it."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        "key": _base64(record.key),
        "value": _base64(record.value),
        "headers": [[name, _base64(value)] for name, value in record.headers],
    }


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


@contextmanager
def _terminating_as_interrupt() -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does, and so does SIGINT where a shell has it ignored (in the background).
    Elsewhere than in the main thread, signals are not ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
