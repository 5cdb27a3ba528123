"""``vectide dlq``: the dead letters, listed and shown."""

from __future__ import annotations

from typing import Annotated

import typer

from vectide.cli_options import AsJson, Timeout, print_json, print_lines, settings_now

dlq = typer.Typer(
    name="dlq",
    help="The records that were put aside: list them, and show one.",
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

    request = LettersRequest(cause or (), table or (), key, since, until, limit, timeout)
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
