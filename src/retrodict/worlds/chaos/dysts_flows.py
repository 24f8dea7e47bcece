"""The systems of the package dysts (Gilpin, NeurIPS 2021), compiled from the installed package at run time.

Its stored invariants disagree with the literature in places and are not taken over: ask the world for `lyapunov` instead.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import warnings
from collections import namedtuple
from collections.abc import Mapping
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaError
from numba.extending import is_jitted, overload

from retrodict.dynamics.ensemble import Flow, flow
from retrodict.dynamics.runge_kutta import SIGNATURE
from retrodict.errors import DataError, require
from retrodict.worlds.catalogue import unknown
from retrodict.worlds.chaos.world import OdeWorld, with_parameters


@cache
def _package() -> tuple[ModuleType, ModuleType]:
    """Its modules `flows` and `base`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return require("dysts.flows", extra="chaos"), require("dysts.base", extra="chaos")


@cache
def _classes() -> dict[str, Any]:
    flows, base = _package()
    kinds = (base.DynSys, base.DynSysDelay)
    found = {n: k for n, k in vars(flows).items() if inspect.isclass(k) and issubclass(k, kinds) and k not in kinds}
    return {name: kind for name, kind in found.items() if not name.startswith("_")}


def names(*, dimension: int | None = None, autonomous: bool | None = None, bounded: bool | None = None) -> tuple[str, ...]:
    """Names of the systems that are ordinary differential equations, in the package's order.

    Args:
        dimension: only those with so many coordinates.
        autonomous: only those that are not driven (True), or only those that are (False).
        bounded: only those without a coordinate that grows without bound, or only those with one.
    """
    _, base = _package()
    chosen = []
    for name, kind in _classes().items():
        if issubclass(kind, base.DynSysDelay):
            continue
        about = _about(name)
        if dimension is not None and about["embedding_dimension"] != dimension:
            continue
        if autonomous is not None and bool(about["nonautonomous"]) == autonomous:
            continue
        if bounded is not None and bool(about["unbounded_indices"]) == bounded:
            continue
        chosen.append(name)
    return tuple(chosen)


def _about(name: str) -> dict[str, Any]:
    _, base = _package()
    entry: dict[str, Any] = base.BaseDyn.load_system_metadata(name, base.DATAPATH_CONTINUOUS)
    return entry


def make(name: str, parameters: Mapping[str, Any]) -> OdeWorld:
    """The system of a name of the package; see `ode_world` for what is raised."""
    _, base = _package()
    if name not in _classes():
        raise unknown(f"dysts/{name}", (f"dysts/{known}" for known in _classes()))
    kind = _classes()[name]
    if issubclass(kind, base.DynSysDelay):
        raise DataError(
            f"dysts/{name} is a delay equation: its state is a stretch of its past, which no integrator of ordinary equations "
            f"holds; the package itself records it: dysts.flows.{name}().make_trajectory(n)."
        )
    with np.errstate(all="ignore"):
        model = kind()
    own = dict(sorted(model.params.items()))
    d = len(model.ic)
    post = model._postprocessing if hasattr(model, "_postprocessing") else None
    return OdeWorld(
        f"dysts/{name}",
        compiled(name),
        with_parameters(f"dysts/{name}", own, parameters),
        tuple(f"x{i}" for i in range(d)),
        float(model.period),
        np.asarray(model.ic, np.float64),
        source="dysts",
        observe=None if post is None else lambda path: np.stack(post(*path.T), -1),
    )


# ---- compiling ------------------------------------------------------------------------------------------------------------


@cache
def compiled(name: str) -> Flow:
    """The right-hand side of a system as a flow; its parameters come in the order of their names."""
    kind = _classes()[name]
    model = kind()
    d, at, reads = len(model.ic), 0, []
    for value in (model.params[key] for key in sorted(model.params)):
        size, shape = np.size(value), np.shape(value)
        reads.append(f"p[{at}:{at + size}].reshape({shape})" if shape else f"p[{at}]")
        at += size
    coordinates = ", ".join(f"x[{i}]" for i in range(d))
    if "rhs" in vars(kind) or not hasattr(kind, "_rhs") or kind.rhs is not _package()[1].DynSys.rhs:
        function = _method(kind, "rhs")
        about = namedtuple("about", [*sorted(model.params)])  # type: ignore[misc]
        calls = [f"rhs(about({', '.join(reads)}), {states}, t)" for states in (f"({coordinates},)", "x")]
        scope = {"rhs": function, "about": about}
    else:
        function = kind._rhs if is_jitted(kind._rhs) else numba.njit(error_model="numpy")(kind._rhs)
        calls = [f"rhs({', '.join([coordinates, 't', *reads])})"]
        scope = {"rhs": function}
    for call in calls:
        try:
            return flow(_written(f"found = {call}\n" + "\n".join(f"dx[{i}] = found[{i}]" for i in range(d)), scope))
        except NumbaError:
            continue
    return _uncompiled(kind, reads)


def _written(body: str, scope: dict[str, Any]) -> FunctionType:
    """A function (t, x, p, dx) with this body."""
    exec("def written(t, x, p, dx):\n" + textwrap.indent(body, "    "), scope)
    function: FunctionType = scope["written"]
    return function


def _method(kind: Any, name: str) -> Any:
    """A method compiled as a function, whose `self` may be anything with the parameters as attributes.

    What it calls of its own class is compiled likewise; static ones take no `self`.
    """
    called = {n: inspect.getattr_static(kind, n) for n in dir(kind) if not n.startswith("__")}
    functions = {n: f for n, f in called.items() if isinstance(f, (FunctionType, staticmethod))}
    function = functions[name]
    if isinstance(function, staticmethod):
        return function.__func__ if is_jitted(function.__func__) else numba.njit(error_model="numpy")(function.__func__)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    own = _OwnCalls(functions)
    definition = ast.fix_missing_locations(own.visit(tree))
    definition.body[0].decorator_list = []
    scope = dict(function.__globals__) | {f"own_{n}": _method(kind, n) for n in own.met}
    exec(compile(definition, inspect.getfile(kind), "exec"), scope)
    return numba.njit(error_model="numpy")(scope[name])


class _OwnCalls(ast.NodeTransformer):
    """Writes `self.method(...)` as `own_method(self, ...)`, or without `self` where the method is static.

    And `matmul` as `dot`, which numba knows.
    """

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self.functions = functions
        self.met: set[str] = set()

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        target = node.func
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
            self.met.add(target.attr)
            static = isinstance(self.functions[target.attr], staticmethod)
            node.args = node.args if static else [target.value, *node.args]
            node.func = ast.Name(f"own_{target.attr}", ast.Load())
        elif isinstance(target, ast.Attribute) and target.attr == "matmul":
            target.attr = "dot"
        return node


def _uncompiled(kind: Any, reads: list[str]) -> Flow:
    """A flow that asks the package itself; what numba does not know is thus slow, but right."""
    model = kind()
    order = sorted(model.params)
    split = eval(f"lambda p: [{', '.join(reads)}]")

    def ask(t: float, x: np.ndarray, p: np.ndarray) -> np.ndarray:
        model.__dict__.update(zip(order, split(p), strict=True))
        model.param_list = [model.__dict__[key] for key in order]
        return np.asarray(model.rhs(x.copy(), t), np.float64)

    vector = numba.float64[::1]

    def asking(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
        with numba.objmode(slope=vector):
            slope = ask(t, x, p)
        dx[:] = slope

    made: Flow = numba.njit(SIGNATURE)(asking)
    return made


# Numba wants the names of what it is taught to be those of the implementation, annotations included.


@overload(np.heaviside)  # type: ignore[untyped-decorator]
def _heaviside(x, at_zero):  # type: ignore[no-untyped-def]
    return lambda x, at_zero: at_zero * 1.0 if x == 0 else (1.0 if x > 0 else 0.0)
