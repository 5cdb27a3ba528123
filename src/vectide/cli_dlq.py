"""``vectide dlq``: the dead letters, listed, shown and replayed."""

from __future__ import annotations

from typing import Annotated

import typer

from vectide.cli_options import EXIT_FAILED, AsJson, Timeout, print_json, print_lines, settings_now

dlq = typer.Typer(
    name="dlq",
    help="The records that were put aside: list them, show one, replay them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Causes = Annotated[
    list[str] | None, typer.Option("--cause", metavar="CAUSE", help="Only of this cause (repeatable).")
]
Tables = Annotated[
    list[str] | None, typer.Option("--table", metavar="TABLE", help="Only of this table (repeatable).")
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="Only of the row with this key: a JSON object, or the plain value of the one key column.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="Put aside since then: ISO time (UTC), or a duration ago (2h)."
    ),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="WHEN", help="Put aside before: ISO time (UTC), or a duration ago."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the newest.")]


@dlq.command("list")
def list_(
    cause: Causes = None,
    table: Tables = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    keys: Annotated[
        bool, typer.Option("--keys", help="Show the keys of the rows, not only a hash of them.")
    ] = False,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the oldest failure first: where, why, when. Shows no content of rows.

    The topic is read from its beginning, outside of the service's consumer group; nothing is committed. Keys
    appear as a short hash (the same for letters of one key) unless you ask for them.
    """
    settings = settings_now()
    from vectide import cli_dlq_output as output
    from vectide.app_letters import LettersRequest, find

    request = LettersRequest(cause or (), table or (), key, since, until, limit, timeout, keys)
    found = find(settings, request)
    if as_json:
        print_lines(output.plain_letter(one, keys=keys) for one in found.letters)
    else:
        output.letters(found, keys=keys)


@dlq.command()
def show(
    place: Annotated[
        str,
        typer.Argument(
            metavar="WHERE",
            help="TOPIC[PARTITION]@OFFSET of the record, or the letter's own OFFSET (PARTITION@OFFSET) "
            "in the dead-letter topic.",
        ),
    ],
    content: Annotated[
        bool, typer.Option("--content/--no-content", help="Show key, headers, value and texts.")
    ] = True,
    stored: Annotated[
        bool, typer.Option("--store", help="Decide from what the store holds, not as if it were empty.")
    ] = False,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter in full, and what would become of its record now. Writes nothing.

    This shows the content of a row, unless you say --no-content. Of several letters about one record the
    newest is shown. A value that the letter had no room for is read from the source topic.
    """
    settings = settings_now()
    from vectide import cli_dlq_output as output
    from vectide.app_letters import show as look_at

    shown = look_at(settings, place, stored=stored, timeout_s=timeout)
    if as_json:
        print_json(output.plain_shown(shown, content=content))
    else:
        output.shown(shown, content=content)


@dlq.command()
def replay(
    cause: Causes = None,
    table: Tables = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be replayed, and ask nobody.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Also letters that were replayed before.")] = False,
    accept_recreated: Annotated[
        bool,
        typer.Option(
            "--accept-recreated",
            help="Also letters whose topic was created again: any record of the row there is newer.",
        ),
    ] = False,
    accept_gone: Annotated[
        bool,
        typer.Option(
            "--accept-gone",
            help="Also letters whose record the source does not keep any more, although a newer change of "
            "the row may have been removed with it.",
        ),
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=1, metavar="SECONDS", help="How long to wait for the next answer.")
    ] = 60.0,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Have the records of dead letters applied again, by the running service; never over a newer row.

    A letter is left out when its source topic has a newer change of the row, when it can still not be read,
    and when it was replayed before. The service answers for each of the others. Exit code 1 when some letters
    still have to be looked after.
    """
    settings = settings_now()
    from vectide import cli_dlq_output as output
    from vectide.app_letters import LettersRequest
    from vectide.app_replay import ReplayRequest
    from vectide.app_replay import replay as perform

    letters = LettersRequest(cause or (), table or (), key, since, until, limit, timeout)
    request = ReplayRequest(letters, dry_run, again, accept_recreated, accept_gone, wait)
    tell = (lambda one: print_lines([output.plain_replayed(one)])) if as_json else output.replayed
    done = perform(settings, request, tell)
    if not as_json:
        output.replay_summary(done)
    if not done.complete:
        raise typer.Exit(EXIT_FAILED)
