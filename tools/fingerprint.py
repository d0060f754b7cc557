"""The fingerprint of what decides a notebook's outputs: its code, the code that it imports from a package, its data.

Docstrings, comments, annotations, layout and the paths of imports decide no output and are left out.
"""

import ast
import hashlib
import json
import re
from collections import Counter
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

MAGIC = re.compile(r"^([ \t]*)([%!].*)$", re.MULTILINE)
FOR_TOOLS = {"__all__", "__version__", "TYPE_CHECKING"}


def fingerprint(notebook, folder):
    """Return the fingerprint of a notebook, given as its JSON, that imports from the package in a folder."""
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    main = Module(ast.Module([ast.If(ast.Constant(True), _statements(cell), []) for cell in cells], []))
    package = Package(folder)
    modules = package.reached(main)
    code = sorted({package.digest(module) for module in modules if module.tree.body})
    files = package.data(main, modules)
    data = sorted((file.name, _digest(file.read_bytes().replace(b"\r\n", b"\n"))) for file in files)
    return _digest(json.dumps([package.digest(main), code, data]).encode())


class Module:
    """The code of a module that can decide an output, and its imports as (path, name, bound name).

    An imported name that the code does not use is one of a type, or one that a package passes on.
    """

    def __init__(self, tree, name="", is_package=False):
        self.is_package, self.imports = is_package, []
        parent = name if is_package else name.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.imports += [(one.name, None, one.asname or one.name) for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                path = resolve_name("." * node.level + (node.module or ""), parent)
                self.imports += [(path, one.name, one.asname or one.name) for one in node.names]
        self.tree = _Code().visit(tree)
        self.nodes = list(ast.walk(tree))
        self.names = Counter(node.id for node in self.nodes if isinstance(node, ast.Name))
        attributes = (node for node in self.nodes if isinstance(node, ast.Attribute))
        self.dotted = [(node.value.id, node.attr) for node in attributes if isinstance(node.value, ast.Name)]
        self.used = {one for one in self.imports if one[1] in (None, "*") or self.names[one[2]]}

    def attributes(self, name):
        """Which attributes of a name are used; None where it is used in another way, too."""
        used = [attribute for owner, attribute in self.dotted if owner == name]
        return set(used) if used and len(used) == self.names[name] else None

    def texts(self):
        """The strings of the code; one with values put in becomes a pattern."""
        for node in self.nodes:
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


class Package:
    """The modules and data files of a package, read and not imported."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __getitem__(self, name):
        """The module of this name, None where the package has none."""
        path = self.folder.parent / name.replace(".", "/")
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if self.folder in file.parents and file.exists():
                return _module(file.read_text(encoding="utf-8"), name, file.parent == path)

    def reached(self, main):
        """The modules that main runs: those that it imports, those that these import, and so on."""
        found, todo = set(), [main]
        while todo:
            module = todo.pop()
            for path, name, bound in module.used:
                new = set(self.behind(path, name, module.attributes(bound))) - found
                found |= new
                todo += new
        return found

    def behind(self, path, name, attributes):
        """The modules behind `from path import name`, of which these attributes are used; None: any."""
        if (module := self[path]) is None:
            return
        yield from (self[path[: end.start()]] for end in re.finditer(r"\.|$", path))
        sources = {bound: (path, name) for path, name, bound in module.imports}
        if sources.get(name, (path, name)) != (path, name):
            yield from self.behind(*sources[name], attributes)
        elif name not in (None, "*"):
            yield from self.behind(f"{path}.{name}", None, attributes)
        elif module.is_package:
            for one in sources if attributes is None else attributes:
                yield from self.behind(path, one, None)

    def data(self, main, modules):
        """The data files that main names, by name, stem or pattern, and those that its modules name."""
        patterns = {text.split("/")[-1] for text in main.texts()}
        names = {text for module in modules for text in module.texts()}
        for file in self.folder.rglob("*.*"):
            matching = (fnmatchcase(file.name, pattern) for pattern in patterns if pattern.endswith(file.suffix))
            if file.suffix not in (".py", ".pyc") and (file.stem in patterns or file.name in names or any(matching)):
                yield file

    def digest(self, module):
        """The digest of a module's code and imports; of imports from the package only the names."""
        imports = set()
        for path, name, bound in module.used:
            names = (bound,) if name in (None, bound) or self[f"{path}.{name}"] else (name, bound)
            imports.add(str(names if self[path] else (path, name, bound)))
        return _digest(json.dumps([_plain(module.tree), sorted(imports)]).encode())


class _Code(ast.NodeTransformer):
    """Takes out imports, annotations, docstrings, and what is there for tools."""

    visit_Import = visit_ImportFrom = lambda self, node: None

    def visit_Module(self, node):
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.visit_Module(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        if node.decorator_list or any(getattr(base, "id", None) == "NamedTuple" for base in node.bases):
            fields = [child.target.id for child in node.body if isinstance(child, ast.AnnAssign)]
            node.decorator_list.append(ast.Constant(fields))  # annotations that make fields, as of a dataclass
        return self.visit_Module(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        return node.value and self.visit(ast.Assign([node.target], node.value))

    def visit_Assign(self, node):
        return None if getattr(node.targets[0], "id", None) in FOR_TOOLS else self.generic_visit(node)

    def visit_If(self, node):
        return None if getattr(node.test, "id", None) in FOR_TOOLS else self.generic_visit(node)

    def visit_JoinedStr(self, node):
        node.values = [part for part in node.values if part.value != ""]  # Python 3.12.1 adds empty ones
        return self.generic_visit(node)


@cache
def _module(text, name, is_package):
    return Module(ast.parse(text), name, is_package)


def _statements(cell):
    """The statements of a cell; lines of magic, or else a cell that is no Python, as strings."""
    for source in (cell, MAGIC.sub(lambda line: line[1] + repr(line[2]), cell), repr(cell)):
        with suppress(SyntaxError):
            return ast.parse(source).body


def _plain(node):
    """A syntax tree as nested lists that are the same on every Python: without what is empty, and positions."""
    if isinstance(node, ast.Constant):
        return ["Constant", ascii(node.value)]
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return [type(node).__name__, *([name, _plain(value)] for name, value in fields)]
    return [_plain(one) for one in node] if isinstance(node, list) else node


def _digest(content):
    return hashlib.sha256(content).hexdigest()
