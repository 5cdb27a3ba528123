"""The built image as a runtime would start it, without one: its root file system, read-only, as its user."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Makes the file system of the image this process's own, read-only, with what was mounted; then becomes the
#: command, which can gain no rights. Arguments: the root, a folder to mount it on, the user, pairs of
#: "what:where", "--", the command.
_ENTER: Final = """
set -eu
root=$1 at=$2 user=$3; shift 3
for mount; do [ "$mount" != -- ] || break; mkdir -p "$root${mount#*:}"; done # as a runtime does
mount --bind "$root" "$at"
mount -o remount,bind,ro "$at"
mount -t proc proc "$at/proc"
mount --rbind /dev "$at/dev"
while [ "$1" != -- ]; do mount --bind -o ro "${1%%:*}" "$at${1#*:}"; shift; done
shift
exec setpriv --no-new-privs chroot --userspec="$user" "$at" "$@"
"""


def home() -> Path:
    """Where ``scripts/image.sh`` leaves what it builds."""
    cache = os.environ.get("VECTIDE_CACHE")
    outer = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vectide"
    return (Path(cache) if cache else outer) / "image"


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system, and what the image says about itself (the runtime's ``config``)."""

    root: Path
    config: Mapping[str, Any]

    @classmethod
    def built(cls) -> Image:
        """The one that was built last; raises OSError where there is none."""
        told = json.loads((home() / "config.json").read_text("utf-8"))
        return cls(home() / "root", told["config"])

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])

    def entering(
        self,
        mount_point: Path,
        command: Sequence[str],
        mounts: Mapping[Path, str] | None = None,
        user: str = "",
    ) -> list[str]:
        """The command line that runs ``command`` inside, as the image's user unless told; ``mounts``: files
        and folders of here, and where they are seen there. The process started is the command itself:
        signals reach it."""
        mount_point.mkdir(exist_ok=True)
        pairs = [f"{what}:{where}" for what, where in (mounts or {}).items()]
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "enter"]
        who = user or str(self.config["User"])
        return [*enter, str(self.root), str(mount_point), who, *pairs, "--", *command]
