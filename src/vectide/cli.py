"""The command line: the verbs, their options and their exit codes.

=====  ==============================================================================================
code   meaning
=====  ==============================================================================================
0      done, or stopped cleanly
1      a check or a verification failed
2      wrong configuration or usage
3      a dependency refused (credentials, dimension, missing topic), or does not answer a verb that
       does not wait
70     a fatal error while running, or a stop that took longer than VECTIDE_LIMITS__GRACE_S
128+n  `run` ended at once, because signal n came while it was stopping already
=====  ==============================================================================================

What a verb needs is imported when it runs: the others must not pay for it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from vectide import __version__
from vectide.cli_dlq import dlq
from vectide.cli_options import (
    EXIT_FAILED,
    EXIT_FATAL,
    EXIT_REFUSED,
    EXIT_USAGE,
    AsJson,
    Timeout,
    json_line,
    print_json,
    print_lines,
    settings_now,
)

_EXIT_CODES: Final = (
    "Exit codes: 0 done or clean stop; 1 a check or verification failed; 2 wrong configuration or usage; "
    "3 a dependency refused, or does not answer a verb that does not wait; 70 a fatal error while running, "
    "or a stop that took longer than its grace; 128+n ended at once by a second signal n."
)

app = typer.Typer(
    name="vectide",
    help="Keeps a vector store equal to your database: Debezium change events in, embeddings out.\n\n"
    "Configured by VECTIDE_* environment variables: `vectide config` lists them.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(dlq)


def main() -> None:
    """Run the verb that the arguments name; ends the process with its exit code."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 (told in one line, with the exit code that it means)
        sys.exit(_told(error))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vectide {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Options before the verb."""


# --- verbs ----------------------------------------------------------------------------------------------


@app.command()
def run() -> None:
    """Stream: change events from Kafka into the vector store, until SIGTERM or Ctrl-C.

    The first signal finishes what is paid for and commits, a second one ends at once. Whatever was not
    committed is done again after the next start; what is stored already is not paid for again.
    """
    try:
        settings = settings_now()
        from vectide.app_service import serve

        serve(settings)
    except Exception as error:  # noqa: BLE001
        _leave(_told(error))
    _leave(0)


@app.command()
def check(timeout: Timeout = 10.0, as_json: AsJson = False) -> None:
    """Validate the configuration and ask every dependency once; changes nothing."""
    from vectide.settings import SettingsError, effective

    try:
        settings = settings_now()
    except SettingsError as error:
        if as_json:
            print_json({"ok": False, "problems": error.problems})
            raise typer.Exit(EXIT_USAGE) from None
        raise
    from vectide import cli_output as output
    from vectide.app_inspect import Verdict
    from vectide.app_inspect import check as ask

    if as_json:
        results = ask(settings, timeout)
    else:
        output.configuration(effective(settings))
        results = ask(settings, timeout, output.result)
    failed = sum(one.verdict is Verdict.FAILED for one in results)
    if as_json:
        checks = output.plain_results(results)
        print_json({"ok": not failed, "configuration": effective(settings), "checks": checks})
    else:
        output.summary(results, failed)
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def init(
    table: Annotated[
        list[str], typer.Option("--table", metavar="SCHEMA.TABLE", help="Table to take in (repeatable).")
    ],
    dsn: Annotated[
        str,
        typer.Option(
            envvar="VECTIDE_SOURCE__DSN",
            show_envvar=False,
            help="The source's PostgreSQL; by default VECTIDE_SOURCE__DSN.",
        ),
    ],
    prefix: Annotated[
        str | None,
        typer.Option(help="The connector's topic.prefix.", show_default="the database's name"),
    ] = None,
    directory: Annotated[Path, typer.Option(help="Where the files go.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    timeout: Timeout = 30.0,
) -> None:
    """Propose tables.yaml and the Debezium connector's JSON for tables of a PostgreSQL database.

    What to embed and what to keep beside it is guessed from names, types and a sample of the rows. Reads
    only; files that are there are left alone.
    """
    from vectide.app_init import InitRequest
    from vectide.app_init import init as propose

    for path in propose(InitRequest(dsn, table, directory, prefix, force, timeout)):
        typer.echo(f"written: {path}")
    typer.echo("next: read both, give tables.yaml to VECTIDE_TABLES_FILE and the connector to Kafka Connect")
    typer.echo("      (its password comes from the variable DATABASE_PASSWORD), then run `vectide check`")


@app.command()
def preview(
    recording: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Records of this file (JSON lines) instead of Kafka's newest."),
    ] = None,
    newest: Annotated[int, typer.Option(min=1, help="How many records of each partition.")] = 10,
    table: Annotated[list[str] | None, typer.Option(help="Only this table (repeatable).")] = None,
    stored: Annotated[
        bool, typer.Option("--store", help="Decide from what the store holds, not as if it were empty.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the records there, for --recording.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--check", metavar="FILE", help="Compare with what --json gave; exit code 1 if it differs."
        ),
    ] = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Show what would become of real events: decision, text, tokens, id, metadata. Changes nothing there.

    This shows the content of rows. Records are decided one after the other, each on what those before it
    would have left; the service may also merge changes of a row that wait.
    """
    kept = None if against is None else _read_lines(against)
    settings = settings_now()
    from vectide import cli_output as output
    from vectide.app_inspect import PreviewRequest
    from vectide.app_inspect import preview as decide

    request = PreviewRequest(recording, newest, table or (), stored, save, timeout)
    previews = decide(settings, request)
    if kept is not None:
        found = [json.loads(json_line(output.plain_preview(one))) for one in previews]
        if output.comparison(kept, found):
            raise typer.Exit(EXIT_FAILED)
    elif as_json:
        print_lines(output.plain_preview(one) for one in previews)
    else:
        output.previews(previews)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What to search for.")],
    table: Annotated[str | None, typer.Option(help="Table to search.")] = None,
    collection: Annotated[str | None, typer.Option(help="Collection to search.")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="NAME=VALUE",
            help="Metadata that must be equal (repeatable); VALUE is JSON or text.",
        ),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose rows; everybody's if not given.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most rows.")] = 10,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Search the store: the rows most similar to a text. This shows the content of rows."""
    if table and collection:
        raise typer.BadParameter("give --table or --collection, not both")
    equal = dict(_filter(given) for given in filters or ())
    settings = settings_now()
    from vectide import cli_output as output
    from vectide.app_inspect import SearchRequest
    from vectide.app_inspect import search as find

    hits = find(settings, SearchRequest(text, table, collection, equal, tenant, limit, timeout))
    if as_json:
        print_lines(output.plain_hit(hit) for hit in hits)
    else:
        output.hits(hits)


@app.command()
def topics(
    create: Annotated[
        bool, typer.Option("--create", help="Create the missing topics of ours; never one of a source.")
    ] = False,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of a topic that is created.")] = 1,
    replication_factor: Annotated[
        int | None, typer.Option(min=1, help="Replicas of a topic that is created [default: the broker's].")
    ] = None,
    principal: Annotated[
        str, typer.Option(help="Whom the printed rights are for.", metavar="TYPE:NAME")
    ] = "User:vectide",
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Print every topic that the service needs, and the least rights, as calls of kafka-acls.sh.

    Nothing is left to the broker's automatic creation. Exit code 1 when a topic is missing.
    """
    settings = settings_now()
    from vectide import cli_dlq_output as output
    from vectide.app_topics import TopicsRequest, needs

    request = TopicsRequest(create, partitions, replication_factor, principal, timeout)
    found = needs(settings, request)
    if as_json:
        print_json(output.plain_needs(found))
    else:
        output.needs(found)
    if found.missing:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def config(
    effective: Annotated[
        bool, typer.Option("--effective", help="Print what is in force, secrets hidden, instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every environment variable with its default and meaning."""
    from vectide import cli_output as output
    from vectide.settings import describe
    from vectide.settings import effective as in_force

    if effective:
        shown = in_force(settings_now())
        print_json(shown) if as_json else output.configuration(shown)
    elif as_json:
        print_json(output.plain_variables(describe()))
    else:
        output.variables(describe())


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Length of the live traffic in seconds [default: 20].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random changes.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep logs, tables and the whole topic.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="No colour, nothing redrawn.")] = False,
    store: Annotated[
        str, typer.Option(help="Kind of the store: pgvector, qdrant, chroma, milvus or lancedb.")
    ] = "pgvector",
) -> None:
    """See it work: broker, store, model and events are embedded; it ends by verifying the store."""
    try:
        from vectide.demo.main import DEFAULT_SECONDS, DEFAULT_SEED
        from vectide.demo.main import run as perform
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vectide"):
            raise
        typer.echo(f'vectide: the demo needs {error.name!r}: pip install "vectide[demo]"', err=True)
        raise typer.Exit(EXIT_USAGE) from None
    length_s = DEFAULT_SECONDS if seconds is None else seconds
    first = DEFAULT_SEED if seed is None else seed
    raise typer.Exit(perform(seconds=length_s, seed=first, keep=keep, plain=plain or None, store=store))


# --- what they share ------------------------------------------------------------------------------------


def _filter(given: str) -> tuple[str, Any]:
    """``name=value``: the value as JSON (number, true, "text") if it is that, else the text as it is."""
    name, separator, value = given.partition("=")
    if not separator or not name.strip():
        raise typer.BadParameter(f"{given!r} is not NAME=VALUE", param_hint="--filter")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def _told(error: Exception) -> int:
    """Say on stderr what is wrong, one line for each problem; returns the exit code."""
    from vectide.ports import AdapterError, MissingExtra, SourceFatal, StartupRefused
    from vectide.settings import SettingsError

    match error:
        case SettingsError(problems=problems):
            lines, code = problems, EXIT_USAGE
        case MissingExtra():
            lines, code = [str(error)], EXIT_USAGE
        case StartupRefused():
            lines, code = [str(error)], EXIT_REFUSED
        case AdapterError():
            lines, code = [f"a dependency cannot be used now: {error}"], EXIT_REFUSED
        case SourceFatal():
            lines, code = [f"fatal: Kafka: {error}"], EXIT_FATAL
        case _:
            # Its message may hold row content.
            lines, code = [f"fatal: {type(error).__name__}{_place(error)}"], EXIT_FATAL
    for line in lines:
        typer.echo(f"vectide: {' '.join(line.split())}", err=True)
    return code


def _place(error: BaseException) -> str:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return ""
    code = last.tb_frame.f_code
    return f" in {code.co_name} ({Path(code.co_filename).name}:{last.tb_lineno})"


def _leave(code: int) -> NoReturn:
    """End the process now: the threads that a stop gave up must not hold it, as a normal exit lets them."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    os._exit(code)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """What ``--json`` wrote to the file, one object per line."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        why = f"cannot be read: {error.strerror or type(error).__name__}"
    except ValueError as error:
        why = f"is not JSON lines: {error}"
    else:
        if all(isinstance(line, dict) for line in lines):
            return lines
        why = "is not JSON lines: each must be an object"
    raise typer.BadParameter(f"{path} {why}; `vectide preview --recording FILE --json > {path}` makes it")
