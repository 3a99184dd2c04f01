"""Dimensions as products of atoms, and which of them are one and the same.

A flattened feature map of 16 channels and 5 x 5 pixels is the dimension ``16 * 5 * 5``. Operations say which atoms of
their inputs and outputs are equal; what is left is a partition of all parameter dimensions (a union-find).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class Atom:
    """One indivisible factor of a dimension.

    Attributes:
        size: how many entries it has.
        pin: why it must keep this size; empty where it is free.
        shifted: an operation gives something else than zero where these units are zero.
    """

    def __init__(self, size: int, pin: str = "", shifted: bool = False) -> None:
        self.size = size
        self.pin = pin
        self.shifted = shifted
        self._same: Atom | None = None
        self._factors: tuple[Atom, ...] = ()


Dim = tuple[Atom, ...]
Shape = tuple[Dim, ...]


def atoms(dim: Dim) -> Dim:
    """The atoms of a dimension in row-major order: merged ones by their representative, composites expanded."""
    found: list[Atom] = []
    for atom in dim:
        while atom._same is not None:
            atom = atom._same
        found.extend(atoms(atom._factors) if atom._factors else (atom,))
    return tuple(found)


def size(dim: Dim) -> int:
    return math.prod(atom.size for atom in atoms(dim))


def new(entries: int, pin: str = "") -> Dim:
    """A dimension of its own; one of a single entry has no atoms, so that it matches anything by broadcasting."""
    return (Atom(entries, pin),) if entries > 1 or not pin else ()


def pin(dim: Dim, reason: str) -> None:
    """Says that a dimension keeps its size; the first reason stays."""
    for atom in atoms(dim):
        atom.pin = atom.pin or reason


def shift(shape: Shape) -> None:
    """Says that units that are zero do not stay zero."""
    for dim in shape:
        for atom in atoms(dim):
            atom.shifted = True


def unify(left: Dim, right: Dim) -> None:
    """Says that two dimensions are the same; the coarser one is split to fit the finer.

    Raises:
        ValueError: their sizes cannot be matched.
    """
    a, b = list(atoms(left)), list(atoms(right))
    while a and b:
        first, second = atoms((a.pop(0),)), atoms((b.pop(0),))
        if len(first) > 1 or len(second) > 1:  # a merge above split it meanwhile
            a[:0], b[:0] = first, second
            continue
        one, other = first[0], second[0]
        if one is other:
            continue
        if one.size == other.size:
            other._same = one
            one.pin, one.shifted = one.pin or other.pin, one.shifted or other.shifted
            continue
        big, small, rest = (one, other, a) if one.size > other.size else (other, one, b)
        rest.insert(0, _split(big, small.size)[1])
        (b if rest is a else a).insert(0, small)
        rest.insert(0, big._factors[0])
    if size(tuple(a)) != 1 or size(tuple(b)) != 1:
        raise ValueError(f"a dimension of {size(left)} cannot be one of {size(right)}")


def _split(atom: Atom, head: int) -> Dim:
    if atom.size % head:
        raise ValueError(f"a dimension of {atom.size} cannot be cut into parts of {head}")
    atom._factors = (Atom(head, atom.pin, atom.shifted), Atom(atom.size // head, atom.pin, atom.shifted))
    return atom._factors


def view(shape: Shape, sizes: Sequence[int], reason: str) -> Shape:
    """The same atoms in row-major order under other dimensions; an atom that must be cut keeps its size.

    Raises:
        ValueError: the sizes do not fit.
    """
    rest = [atom for dim in shape for atom in atoms(dim)]
    result: list[Dim] = []
    for want in sizes:
        dim: list[Atom] = []
        while (missing := want // math.prod(atom.size for atom in dim)) > 1:
            if not rest:
                raise ValueError(f"cannot view {[size(d) for d in shape]} as {list(sizes)}")
            atom = rest.pop(0)
            if atom.size > missing:
                pin((atom,), reason)
                atom, tail = _split(atom, missing)
                rest.insert(0, tail)
            dim.append(atom)
        result.append(tuple(dim))
    return tuple(result)
