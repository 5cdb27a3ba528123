"""The composition root of ``vectide dlq``: dead letters found, shown and told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from vectide.app import Decode, build_codec, build_decoder, build_registry
from vectide.app_inspect import PreviewRequest, preview
from vectide.core.letters import Choice, KeyWanted, Place, moment_ms
from vectide.core.letters import DeadLetter as DeadLetter
from vectide.core.model import Columns, Record, canonical_json
from vectide.jobs.executor import SystemClock
from vectide.jobs.originals import Lost, is_wanted, key_of, original_of, recreated
from vectide.jobs.preview import Preview
from vectide.ports import Deadline, Partition, StartupRefused
from vectide.settings import Settings, SettingsError
from vectide.sources.kafka_reader import KafkaReader

_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class LettersRequest:
    """Which letters: see :class:`~vectide.core.letters.Choice`. ``since`` and ``until`` as people write
    them; ``limit``: only so many, the newest. ``timeout_s``: how long nothing may arrive. ``keys``: find out
    the rows' keys, which takes a look into each record."""

    causes: Sequence[str] = ()
    tables: Sequence[str] = ()
    key: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int | None = None
    timeout_s: float = 10.0
    keys: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A letter, and the canonical key of its row where that can be told."""

    letter: DeadLetter
    key: Columns | None

    @property
    def key_text(self) -> str:
        """The key as people read it: of the row, else of the record."""
        if self.key is not None:
            return canonical_json(self.key)
        key = self.letter.record.key
        return "-" if key is None else key.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Found:
    """The letters asked for, oldest failure first, and how many there were of each cause before the limit.
    ``strangers``: records of the topic that are no letters."""

    letters: Sequence[Listed]
    causes: Mapping[str, int]
    strangers: int = 0

    @property
    def total(self) -> int:
        return sum(self.causes.values())


@dataclass(frozen=True, slots=True)
class Shown:
    """One letter in full. ``record`` is the whole record, None where it cannot be had (``lost`` says why);
    ``preview`` is what would become of it now. ``same``: where other letters about the same record lie."""

    letter: DeadLetter
    key: Columns | None
    record: Record | None
    lost: str
    recreated: bool
    preview: Preview | None
    same: Sequence[Place] = field(default=())


def find(settings: Settings, request: LettersRequest) -> Found:
    """Read the dead-letter topic from its beginning."""
    choice, wanted = choice_of(settings, request)
    listed: list[Listed] = []
    strangers = 0
    with reader_of(settings) as reader, decoder_of(settings) as decode:
        for stored in _stored(settings, reader, request.timeout_s):
            letter = DeadLetter.read(stored)
            if letter is None:
                strangers += 1
            elif choice.takes(letter):
                key = None
                if request.keys or wanted is not None:
                    key = key_of(letter.record, decode, settings.mapping_of(letter.record.topic))
                if wanted is None or is_wanted(letter, key, wanted):
                    listed.append(Listed(letter.without_content(), key))
    listed.sort(key=lambda one: (one.letter.failed_ms or 0, one.letter.at))
    causes = Counter(one.letter.cause for one in listed)
    kept = listed if request.limit is None else listed[-request.limit :]
    return Found(kept, dict(causes.most_common()), strangers)


def show(settings: Settings, where: str, *, stored: bool, timeout_s: float) -> Shown:
    """The newest letter at or about this place. Raises StartupRefused when there is none, SettingsError when
    ``where`` names no place, or several letters."""
    try:
        place = Place.parse(where)
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    with reader_of(settings) as reader, decoder_of(settings) as decode:
        if place.topic in ("", settings.dlq.topic):
            letters: Sequence[DeadLetter] = list(_letters_at(settings, reader, place, timeout_s))
        else:
            letters = _letters_about(settings, reader, place, timeout_s)
        if not letters:
            raise StartupRefused(f"{settings.dlq.topic} has no dead letter {place}")
        letter = letters[-1]
        same = [one.at for one in letters[:-1]]
        if place.topic in ("", settings.dlq.topic) and same:
            places = ", ".join(f"{one.at.partition}@{one.at.offset}" for one in letters)
            raise SettingsError([f"several letters lie at this offset, name one: {places}"])
        deadline = Deadline.after(_CLOCK, timeout_s)
        log = reader.log_id(letter.record.topic)
        key = key_of(letter.record, decode, settings.mapping_of(letter.record.topic))
        try:
            record, lost = original_of(letter, reader, deadline), ""
        except Lost as error:
            record, lost = None, str(error)
    previewed = None
    if record is not None:
        logs = {record.topic: letter.log or log}
        asked = PreviewRequest(stored=stored, timeout_s=timeout_s, records=[record], logs=logs)
        (previewed,) = preview(settings, asked)
    return Shown(letter, key, record, lost, recreated(letter, log), previewed, same)


def choice_of(settings: Settings, request: LettersRequest) -> tuple[Choice, KeyWanted | None]:
    """What is meant, or SettingsError with all that is wrong with it."""
    problems: list[str] = []
    now_ms = _CLOCK.wall_ms()

    def moment(given: str | None, option: str) -> int | None:
        try:
            return None if given is None else moment_ms(given, now_ms)
        except ValueError as error:
            problems.append(f"{option}: {error}")
            return None

    since_ms, until_ms = moment(request.since, "--since"), moment(request.until, "--until")
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        problems.append("--since must be before --until")
    if problems:
        raise SettingsError(problems)
    # Tables are not checked: letters outlive them.
    choice = Choice(frozenset(request.causes), frozenset(request.tables), since_ms, until_ms)
    return choice, None if request.key is None else KeyWanted.parse(request.key)


@contextmanager
def reader_of(settings: Settings) -> Iterator[KafkaReader]:
    """A reader outside of the service's group."""
    try:
        reader = KafkaReader(
            bootstrap_servers=settings.kafka.bootstrap_servers, extra=settings.kafka.properties, clock=_CLOCK
        )
    except ValueError as error:
        raise SettingsError([f"VECTIDE_KAFKA__EXTRA: {error}"]) from None
    with reader:
        yield reader


@contextmanager
def decoder_of(settings: Settings) -> Iterator[Decode]:
    """What reads events here as the service does, waiting for the schema registry where it has to."""
    registry = build_registry(settings)
    try:
        yield build_decoder(settings, build_codec(settings), registry)
    finally:
        if registry is not None:
            registry.close()


# --- reading --------------------------------------------------------------------------------------------


def _partitions(settings: Settings, reader: KafkaReader, deadline: Deadline) -> Sequence[Partition]:
    topic = settings.dlq.topic
    partitions = reader.partitions(topic, deadline)
    if not partitions:
        raise StartupRefused(
            f"Kafka has no topic {topic} (or hides it from us): `vectide topics` says what it must be, and "
            "makes it with --create"
        )
    return partitions


def _stored(settings: Settings, reader: KafkaReader, timeout_s: float) -> Iterator[Record]:
    """Every record that the dead-letter topic holds now."""
    deadline = Deadline.after(_CLOCK, timeout_s)
    bounds = reader.bounds(_partitions(settings, reader, deadline), deadline)
    yield from reader.read(bounds, patience_s=timeout_s)


def stored_letters(settings: Settings, reader: KafkaReader, timeout_s: float) -> Iterator[DeadLetter]:
    """Every dead letter that the topic holds now, whole."""
    for stored in _stored(settings, reader, timeout_s):
        letter = DeadLetter.read(stored)
        if letter is not None:
            yield letter


def _letters_at(
    settings: Settings, reader: KafkaReader, place: Place, timeout_s: float
) -> Iterator[DeadLetter]:
    """The letters that lie at this offset of the dead-letter topic, in the partitions that are meant."""
    deadline = Deadline.after(_CLOCK, timeout_s)
    partitions = _partitions(settings, reader, deadline)
    meant = [partition for partition in partitions if place.partition in (None, partition[1])]
    wanted = {
        partition: (place.offset, place.offset + 1)
        for partition, (low, high) in reader.bounds(meant, deadline).items()
        if low <= place.offset < high
    }
    for stored in reader.read(wanted, patience_s=timeout_s):
        letter = DeadLetter.read(stored)
        if letter is not None and stored.offset == place.offset:
            yield letter


def _letters_about(
    settings: Settings, reader: KafkaReader, place: Place, timeout_s: float
) -> Sequence[DeadLetter]:
    """The letters about this record of a source topic, oldest failure first."""
    letters = [
        letter
        for stored in _stored(settings, reader, timeout_s)
        if (letter := DeadLetter.read(stored)) is not None and letter.source == place
    ]
    return sorted(letters, key=lambda letter: (letter.failed_ms or 0, letter.at))
