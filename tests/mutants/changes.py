"""Small changes to a function, each of which some test should notice."""

from __future__ import annotations
import __future__

import ast
import copy
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple

PAIRS = (
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)),
    *((ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv)),
)
TURNED: dict[type[ast.AST], type[ast.AST]] = {
    **{one: other for pair in PAIRS for one, other in (pair, pair[::-1])},
    ast.Div: ast.Mult,
}
EXCHANGED = {"max": "min", "min": "max", "any": "all", "all": "any"}
Function = ast.FunctionDef | ast.AsyncFunctionDef
Blocks = ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.With | ast.AsyncWith | Function
Edit = Callable[[Any], object]
"""Changes a node of a copy."""


class Change(NamedTuple):
    """One change of one function."""

    function: str
    """Its qualified name in the module."""
    line: int
    what: str
    code: CodeType
    """The function's, changed."""


def changes(source: str, path: str) -> Iterator[Change]:
    """Yield every change of every function of a module, in the order of its lines."""
    for name, function in _functions(ast.parse(source)):
        for at, node in enumerate(_decided_in(function)):
            for what, edit in (*_edits(node), *_left_out(node)):
                changed = copy.deepcopy(function)
                edit(list(_decided_in(changed))[at])
                yield Change(name, getattr(node, "lineno", function.lineno), what, _compiled(changed, path))


def _compiled(function: Function, path: str) -> CodeType:
    function.decorator_list = []
    module = ast.fix_missing_locations(ast.Module([function], []))
    code = compile(module, path, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    return next(part for part in code.co_consts if isinstance(part, CodeType))


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{each.name}", each) for each in node.body if isinstance(each, Function))


def _decided_in(function: Function) -> Iterator[ast.AST]:
    """Yield a function and what is in its body, without docstrings and what only goes into a log or an error."""
    yield function
    pending: list[ast.AST] = list(reversed(function.body))
    while pending:
        node = pending.pop()
        if _is_said(node) or isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        yield node
        inside = [each for each in ast.iter_child_nodes(node) if each is not getattr(node, "annotation", None)]
        pending += reversed([each for each in inside if not isinstance(each, ast.arguments)])


def _is_said(node: ast.AST) -> bool:
    """Whether it is a docstring, or a line for the log."""
    if not isinstance(node, ast.Expr):
        return False
    return isinstance(node.value, ast.Constant) or ast.unparse(node.value).startswith("log.")


def _edits(node: ast.AST) -> Iterator[tuple[str, Edit]]:
    """Yield what can be changed at one node, in words, and what does it."""
    match node:
        case ast.Compare(ops=ops):
            for at, operator in enumerate(ops):
                yield from _turned(node, operator, lambda new, other, at=at: new.ops.__setitem__(at, other))
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op):
            yield from _turned(node, op, lambda new, other: setattr(new, "op", other))
        case ast.UnaryOp(op=ast.Not()):
            yield f"`{ast.unparse(node)}` without not", lambda new: setattr(new, "operand", _not(new.operand))
        case ast.Constant(value=bool() | int() as value):
            other = not value if isinstance(value, bool) else value + 1
            yield f"{value} is {other}", lambda new: setattr(new, "value", other)
        case ast.Call(func=ast.Name(id=name)) if name in EXCHANGED:
            yield f"{name} is {EXCHANGED[name]}", lambda new: setattr(new.func, "id", EXCHANGED[name])
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not isinstance(
            test, ast.Compare | ast.BoolOp | ast.UnaryOp
        ):
            yield f"`{ast.unparse(test)}` negated", lambda new: setattr(new, "test", _not(new.test))


def _left_out(node: ast.AST) -> Iterator[tuple[str, Edit]]:
    """Yield each statement of a block that can be left out."""
    if isinstance(node, Blocks):
        for block in ("body", "orelse", "finalbody"):
            for at, statement in enumerate(getattr(node, block, ())):
                if _takes_effect(statement):
                    edit = lambda new, block=block, at=at: getattr(new, block).__setitem__(at, ast.Pass())  # noqa: E731
                    yield f"without `{ast.unparse(statement)}`", edit


def _not(expression: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), expression)


def _turned(node: ast.AST, operator: ast.AST, put: Callable[[Any, ast.AST], object]) -> Iterator[tuple[str, Edit]]:
    other = TURNED.get(type(operator))
    if other is not None:
        yield f"`{ast.unparse(node)}`: {type(operator).__name__} is {other.__name__}", lambda new: put(new, other())


def _takes_effect(statement: ast.stmt) -> bool:
    """Whether something is done without it, and the function can still be compiled and run."""
    match statement:
        case ast.Delete() | ast.Continue() | ast.Break() | ast.Raise():
            return True
        case ast.Assign(targets=[target, *_]) | ast.AugAssign(target=target):
            return not isinstance(target, ast.Name | ast.Tuple)
        case ast.Expr():
            return not _is_said(statement)
    return False
