# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The package's own source as one flat folder of files, the only layout that transformers loads code from.

transformers copies the files of a checkpoint's `auto_map` out of the checkpoint and finds what they need by looking
for lines of the form `from .name import thing`. So every module that is needed becomes one file beside the others, its
imports of the package become relative ones of that form, and everything else stays as it is, comments included.

Operators of torch are known by their name to the whole process, and a second definition silently takes the place of
the first. A copy therefore names its operators after the module it was imported as, so that the installed package
and any number of exported checkpoints keep out of each other's way.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable


PACKAGE = "turingvit_hf"
OPERATOR_NAMESPACE = "turingvit::"
NAMESPACE_FILE = "operator_namespace"
NAMESPACE_SOURCE = '''\
# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The namespace of this copy's operators: like the module's own name, it belongs to no other copy in the process."""

import zlib


NAMESPACE = f"turingvit_{zlib.crc32(__name__.encode()):08x}"
'''


def flat_name(module: str) -> str:
    """The name of a module's flat file, without its sub-package: `turingvit_hf.kernels.a.op` becomes `a_op`."""
    return "_".join(module.split(".")[2:])


def flatten_sources(entry_modules: Iterable[str]) -> dict[str, str]:
    """The text of each flat file by its name, of the given modules and of all modules of the package they import.

    Args:
        entry_modules: Full names like `turingvit_hf.modeling.modeling_turingvit`.

    Raises:
        ValueError: A module imports the package in a form that has no flat counterpart; the text names the line.
    """
    pending, modules, texts = [*entry_modules], set(), {}
    while pending:
        module = pending.pop()
        if module in modules:
            continue
        modules.add(module)
        rewriter = _Rewriter(module)
        file_name = f"{flat_name(module)}.py"
        assert file_name not in texts, f"{module} and another module share the flat name {file_name}"
        texts[file_name] = rewriter.flat_text()
        pending += rewriter.imported
        if rewriter.has_operators:
            texts[f"{NAMESPACE_FILE}.py"] = NAMESPACE_SOURCE
    return texts


def _source_file(module: str) -> Traversable | None:
    """The file of a module or of a package's `__init__`, None if there is no such module."""
    *parents, name = module.split(".")[1:]
    folder = files(PACKAGE).joinpath(*parents)
    for file in (folder.joinpath(f"{name}.py"), folder.joinpath(name, "__init__.py")):
        if file.is_file():
            return file
    return None


@dataclass
class _Rewriter:
    """Turns one module into its flat text and remembers which modules that needs."""

    module: str
    imported: set[str] = field(default_factory=set)
    has_operators: bool = False
    _edits: list[tuple[int, int, str]] = field(default_factory=list)

    def flat_text(self) -> str:
        """The module's text with imports and operator names replaced, and nothing else changed."""
        file = _source_file(self.module)
        if file is None:
            raise ValueError(f"{PACKAGE} has no module {self.module!r}")
        source = file.read_bytes()
        tree = ast.parse(source)
        # ast counts columns in bytes of UTF-8
        starts = [0]
        for line in source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        for node in ast.walk(tree):
            if isinstance(node, ast.expr | ast.stmt) and (text := self._replacement(node)) is not None:
                # None only in nodes that were not parsed from text
                assert node.end_lineno is not None
                assert node.end_col_offset is not None
                begin = starts[node.lineno - 1] + node.col_offset
                end = starts[node.end_lineno - 1] + node.end_col_offset
                self._edits.append((begin, end, text))
        if self.has_operators:
            first = next(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
            place = starts[first.lineno - 1]
            self._edits.append((place, place, f"from .{NAMESPACE_FILE} import NAMESPACE\n"))
        for begin, end, text in sorted(self._edits, reverse=True):
            source = source[:begin] + text.encode() + source[end:]
        return source.decode()

    def _replacement(self, node: ast.expr | ast.stmt) -> str | None:
        """What stands in a flat file in place of this node, None if it stays."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith(OPERATOR_NAMESPACE):
                self.has_operators = True
                return 'f"{NAMESPACE}::' + node.value.removeprefix(OPERATOR_NAMESPACE) + '"'
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise self._error(node, "a relative import")
            if node.module.partition(".")[0] == PACKAGE:
                return self._flat_import(node, node.module)
        elif isinstance(node, ast.Import) and any(alias.name.partition(".")[0] == PACKAGE for alias in node.names):
            raise self._error(node, "an import without from")
        return None

    def _flat_import(self, node: ast.ImportFrom, module: str) -> str:
        """One or more import statements, at the indentation of the one they replace."""
        names, statements = [], []
        for alias in node.names:
            submodule = f"{module}.{alias.name}"
            if _source_file(submodule) is None:
                names.append(ast.unparse(alias))
                continue
            self.imported.add(submodule)
            flat = flat_name(submodule)
            # the second form alone is one that transformers does not recognize, and it would leave the file behind
            statements.append(f"from .{flat} import __name__ as _")
            statements.append(f"from . import {flat} as {alias.asname or alias.name}")
        if names:
            if not flat_name(module) or "*" in names:
                raise self._error(node, f"an import of {', '.join(names)} from {module}")
            self.imported.add(module)
            statements.insert(0, f"from .{flat_name(module)} import {', '.join(names)}")
        return ("\n" + " " * node.col_offset).join(statements)

    def _error(self, node: ast.stmt, what: str) -> ValueError:
        return ValueError(f"{self.module}, line {node.lineno}: {what} cannot be exported as a flat file")
