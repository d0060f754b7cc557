"""Tables that print as columns of text in a terminal and as HTML in a notebook."""

import textwrap
from html import escape

Lines = list[list[str]]


class Table:
    """What prints as a table; a class that derives from it says in `_table` and `definition` what stands there."""

    _aligned = ""  # for each column "<", words, or ">", numbers

    @property
    def definition(self) -> str:
        """What the numbers mean, as printed under the table."""
        raise NotImplementedError

    def _table(self) -> tuple[Lines, Lines, Lines]:
        """The lines of the table's head, body and foot, which may have none."""
        raise NotImplementedError

    def __str__(self) -> str:
        parts = self._table()
        widths = [max(map(len, column)) for column in zip(*sum(parts, []), strict=True)]
        cell = "{:{}{}}".format
        head, *others = (["  ".join(map(cell, line, self._aligned, widths)) for line in part] for part in parts)
        rule = ["-" * len(head[0])]
        lines = head + sum((rule + part for part in others if part), [])
        return "\n".join([*lines, *textwrap.wrap(self.definition, len(rule[0]))])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = '<td style="text-align: {}">{}</td>'.format
        sides = [{"<": "left", ">": "right"}[at] for at in self._aligned]
        rows = (["".join(map(cell, sides, map(escape, line))) for line in part] for part in self._table())
        head, body, foot = ("".join(map("<tr>{}</tr>".format, part)) for part in rows)
        return (
            f"<table><thead>{head}</thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"
            f"<p>{escape(self.definition)}</p>"
        )
