"""Write the reference of the relay's configuration from its schema.

```{configuration-keys} listen
```

becomes a table of the keys of `[[listen]]`; without an argument, of those outside any table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sphinx.util.docutils import SphinxDirective

from twisted_sendmail.daemon.config_schema import Key, keys

if TYPE_CHECKING:
    from docutils.nodes import Node
    from sphinx.application import Sphinx


def table(name: str) -> str:
    """Return the Markdown of one table of keys."""
    rows = [
        f"| `{f'{name}.' if name else ''}{key}` | {about.description} | {default(about)} |"
        for of, key, about in keys()
        if of == name
    ]
    return "\n".join(["| key | meaning | default |", "|---|---|---|", *rows])


def default(key: Key) -> str:
    """Return the last column: the default, in TOML, or the effect of leaving the key out."""
    if key.required:
        return "required"
    if key.default in (None, [], {}):
        return key.absent
    return f"`{json.dumps(key.default)}`"


class ConfigurationKeys(SphinxDirective):
    """The directive."""

    optional_arguments = 1

    def run(self) -> list[Node]:
        """Make the table."""
        name = self.arguments[0] if self.arguments else ""
        return self.parse_text_to_nodes(table(name))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("configuration-keys", ConfigurationKeys)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
