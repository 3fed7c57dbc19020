"""Write the reference of the relay's configuration from its schema.

```{configuration-keys} listen
```

becomes a table of the keys of `[[listen]]`; without an argument, of those outside any table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sphinx.util.docutils import SphinxDirective

from twisted_sendmail.daemon.config_schema import Key, all_keys

if TYPE_CHECKING:
    from docutils.nodes import Node
    from sphinx.application import Sphinx


def table(name: str) -> str:
    """Return the table as reStructuredText, which the docstrings of the schema are written in."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 3 6 2", ""]
    rows = [("key", "meaning", "default")]
    for of, key, about, meaning in all_keys():
        if of == name:
            rows.append((f"``{f'{name}.' if name else ''}{key}``", meaning, default(about)))
    for first, *others in rows:
        lines += [f"   * - {first}", *(f"     - {text}" for text in others)]
    return "\n".join(lines)


def default(key: Key) -> str:
    """Return the default, in TOML."""
    if key.required:
        return "required"
    return "" if key.default in (None, [], {}) else f"``{json.dumps(key.default)}``"


class ConfigurationKeys(SphinxDirective):
    """The directive."""

    optional_arguments = 1

    def run(self) -> list[Node]:
        """Make the table."""
        name = self.arguments[0] if self.arguments else ""
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n{table(name)}\n```")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("configuration-keys", ConfigurationKeys)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
