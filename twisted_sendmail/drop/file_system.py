"""The file system of a drop directory: whether fsync of a new file makes its name durable too.

The ``sendmail`` command cannot call fsync(2) for the directory, which ordinary users may not open.
"""

from __future__ import annotations

import os
import re

#: Types on which the name of a new file is durable after fsync of the file.
DURABLE_TYPES = frozenset({"ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs"})
_ESCAPED = re.compile(r"\\([0-7]{3})")


def file_system_type(path: str) -> str | None:
    """Return the type of the file system at *path*, such as ``ext4``; None if it is not known."""
    place, found = os.path.realpath(path), None
    best = -1
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:  # noqa: PTH123 - as in this package
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields.split()[4])
                inside = place == point or place.startswith(point.rstrip("/") + "/")
                # Of two mounts at one point, the later one is visible.
                if inside and len(point) >= best:
                    best, found = len(point), rest.split()[0]
    except (OSError, IndexError):
        return None
    return found


def durability_warning(path: str) -> str | None:
    """Return a warning if mail in the drop directory at *path* may be lost at a power failure."""
    type_ = file_system_type(path)
    if type_ is None or type_ in DURABLE_TYPES:
        return None
    return (
        f"the drop directory {path} is on a file system of the type {type_}, on which fsync may not "
        "make the name of a new file durable: mail of local programs may be lost at a power "
        f"failure; put the spool on one of {', '.join(sorted(DURABLE_TYPES))}"
    )
