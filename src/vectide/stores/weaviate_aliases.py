"""Aliases of the Weaviate store: the server's own, since its version 1.32."""

from __future__ import annotations

from vectide.ports import Deadline
from vectide.stores.aliases import in_use, is_alias, missing, name_taken, refused, unless_missing
from vectide.stores.http_calls import HttpCalls
from vectide.stores.weaviate_collections import NAME, Collections, class_of


class Aliases:
    """Those of one server. Their names begin with a capital, as those of collections do."""

    def __init__(self, http: HttpCalls, collections: Collections) -> None:
        self._http = http
        self._collections = collections

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`."""
        if not NAME.fullmatch(alias):
            raise refused("name", f"a weaviate alias cannot be named {alias!r}: letters and digits can")
        if self._collections.shape(collection, deadline, fresh=True).name != collection:
            raise missing(collection)
        name = class_of(alias)
        leads = self._target(alias, deadline) is not None
        if not leads and unless_missing(lambda: self._http.call("GET", f"schema/{name}", deadline)):
            raise name_taken(alias)
        verb, path = ("PUT", f"aliases/{name}") if leads else ("POST", "aliases")
        self._http.call(verb, path, deadline, {"alias": name, "class": class_of(collection)})

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        target = self._target(alias, deadline)
        return None if target is None else self._collections.shape(target, deadline, fresh=True).name

    def check_unused(self, collection: str, deadline: Deadline) -> None:
        """Refuse the name of an alias, and that of a collection that one leads to."""
        target = self._target(collection, deadline)
        if target is not None:
            raise is_alias(collection, target)
        path = f"aliases?class={class_of(collection)}"
        for one in (unless_missing(lambda: self._http.call("GET", path, deadline)) or {}).get("aliases", ()):
            raise in_use(collection, one["alias"])

    def _target(self, alias: str, deadline: Deadline) -> str | None:
        """The collection, as the server has its name. A server before 1.32 has no aliases."""
        found = unless_missing(lambda: self._http.call("GET", f"aliases/{class_of(alias)}", deadline))
        return None if found is None else str(found["class"])
