"""For the documentation site: `>>>` examples in docstrings are code, wherever they stand.

griffe's reading of docstrings knows them under a heading "Examples:" alone, which the docstrings here do without.
"""

import re

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n).*)*", re.M)


class DocstringExamples(Extension):
    """Puts fences around every block that begins with `>>>`, up to the next empty line."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """As soon as an object has been read."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
