"""Dimensions as products and concatenations of atoms, and which of them are one and the same.

A flattened feature map of 16 channels and 5 x 5 pixels is the dimension ``16 * 5 * 5``; a concatenation of two maps is
one atom made of two dimensions. Operations say which atoms of their inputs and outputs are equal; what is left is a
partition of all parameter dimensions (a union-find). Widths that change later change the atoms' sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Atom:
    """One factor of a dimension: some units, or several dimensions one after the other.

    Attributes:
        pin: why it must keep its size; empty where it is free.
    """

    def __init__(self, size: int, pin: str = "", parts: tuple[Dim, ...] = ()) -> None:
        self.pin = pin
        self._size = size
        self._same: Atom | None = None
        self._factors: Dim = ()
        self._parts = parts

    def __deepcopy__(self, memo: object) -> Atom:
        """A copy of a network has the same dimensions."""
        return self

    @property
    def parts(self) -> tuple[Dim, ...]:
        """What it is a concatenation of; empty where it is nothing but units."""
        return self._parts

    @property
    def size(self) -> int:
        """How many entries it has."""
        return sum(size(part) for part in self._parts) if self._parts else self._size

    @size.setter
    def size(self, entries: int) -> None:
        assert not self._parts
        self._size = entries


Dim = tuple[Atom, ...]
Shape = tuple[Dim, ...]
CUT = "cut across its units"
"""Why a dimension stays whose units cannot be told apart any more, as of 2 x 3 entries that are seen as 3 x 2."""


def atoms(dim: Dim) -> Dim:
    """The atoms of a dimension in row-major order: merged ones by their representative, products expanded."""
    found: list[Atom] = []
    for atom in dim:
        while atom._same is not None:
            atom = atom._same
        found.extend(atoms(atom._factors) if atom._factors else (atom,))
    return tuple(found)


def leaves(dim: Dim) -> list[Atom]:
    """Every atom that is nothing but units, those inside concatenations included; each once."""
    found: dict[Atom, None] = {}
    for atom in atoms(dim):
        for leaf in [leaf for part in atom.parts for leaf in leaves(part)] or [atom]:
            found[leaf] = None
    return list(found)


def size(dim: Dim) -> int:
    """How many entries the dimension has."""
    entries = 1
    for atom in atoms(dim):
        entries *= atom.size
    return entries


def new(entries: int, pin: str = "") -> Dim:
    """A dimension of its own; one of a single entry has no atoms, so that it matches anything by broadcasting."""
    return (Atom(entries, pin),) if entries > 1 else ()


def pin(dim: Dim, reason: str) -> None:
    """Says that a dimension keeps its size; the first reason stays."""
    for leaf in leaves(dim):
        leaf.pin = leaf.pin or reason


def pinned(dim: Dim) -> bool:
    """Whether no part of the dimension can change."""
    return all(leaf.pin for leaf in leaves(dim))


def freeze(dim: Dim, reason: str) -> Dim:
    """Pins a dimension, and gives another of its size that is known only as a whole."""
    pin(dim, reason)
    return new(size(dim), reason)


# Which are the same ---------------------------------------------------------------------------------


class _Uncut(Exception):
    """Factors that have no common refinement."""


def unify(left: Dim, right: Dim) -> None:
    """Says that two dimensions are the same; the coarser one is split to fit the finer.

    Where no split fits both, as with 2 x 3 and 3 x 2 entries, both keep their size.

    Raises:
        ValueError: they have other sizes.
    """
    if size(left) != size(right):
        raise ValueError(f"a dimension of {size(left)} cannot be one of {size(right)}")
    try:
        _unify(left, right)
    except _Uncut:
        pin(left, CUT)
        pin(right, CUT)


def _unify(left: Dim, right: Dim) -> None:
    a, b = list(atoms(left)), list(atoms(right))
    while a and b:
        a[:1], b[:1] = atoms((a[0],)), atoms((b[0],))
        one, other = a[0], b[0]
        if one is other or one.size == other.size:
            del a[0], b[0]
            _merge(one, other)
        elif one.size > other.size:
            _split(one, other.size)
        else:
            _split(other, one.size)


def _merge(one: Atom, other: Atom) -> None:
    """Says that two atoms of one size are the same."""
    if one is other:
        return
    if other.parts and not one.parts:
        one, other = other, one
    if other.parts:
        _align(one, other)
    elif one.parts:
        pin((one,), other.pin) if other.pin else None
    else:
        one.pin = one.pin or other.pin
    other._same = one


def _align(one: Atom, other: Atom) -> None:
    """Says that two concatenations of one size are the same, part by part; each is cut where the other is."""
    left, right, parts = list(one.parts), list(other.parts), []
    while left and right:
        p, q = left.pop(0), right.pop(0)
        small = min(size(p), size(q))
        if size(p) > small:
            p, rest = cut(p, [small, size(p) - small])
            left.insert(0, rest)
        if size(q) > small:
            q, rest = cut(q, [small, size(q) - small])
            right.insert(0, rest)
        unify(p, q)
        parts.append(p)
    one._parts = tuple(parts)


def _split(atom: Atom, head: int) -> Dim:
    """Makes an atom the product of ``head`` and the rest.

    Raises:
        _Uncut: its size is no multiple of ``head``.
    """
    if atom.size % head:
        raise _Uncut
    tail = atom.size // head
    if not atom.parts:
        atom._factors = (*new(head, atom.pin), *new(tail, atom.pin))
    elif any(size(part) % tail for part in atom.parts):
        pin((atom,), "a concatenation cut across its parts")
        atom._factors = (*new(head, "as above"), *new(tail, "as above"))
    else:
        heads: list[Dim] = []
        tails: list[Dim] = []
        for part in atom.parts:
            before, after = view((part,), [size(part) // tail, tail])
            heads.append(before)
            tails.append(after)
        for other in tails[1:]:
            unify(tails[0], other)
        atom._factors = (*cat(heads), *tails[0])
    atom._parts = ()
    return atom._factors


def cat(dims: Sequence[Dim]) -> Dim:
    """Dimensions one after the other as one."""
    if len(dims) == 1:
        return dims[0]
    entries = sum(map(size, dims))
    if all(map(pinned, dims)):
        reasons = [leaf.pin for dim in dims for leaf in leaves(dim)]
        return new(entries, reasons[0] if reasons else "a count of parts")
    return (Atom(entries, parts=tuple(dims)),)


def cut(dim: Dim, sizes: Sequence[int]) -> list[Dim]:
    """The reverse of ``cat``: pieces of the given sizes; where they cannot be told apart, all keep their size."""
    inside = atoms(dim)
    if not inside or len(sizes) == 1:
        return [dim if entries == size(dim) else () for entries in sizes]
    lead, tail = inside[0], inside[1:]
    inner = size(tail)
    if pinned(dim) or any(entries % inner for entries in sizes):
        reason = "a dimension cut inside a unit"
        pin(dim, reason)
        return [new(entries, leaves(dim)[0].pin) for entries in sizes]
    pieces: list[Dim] = []
    if not lead.parts:
        pieces = [new(entries // inner, lead.pin) for entries in sizes]
        lead._parts = tuple(pieces)
    else:
        left, parts = list(lead.parts), []
        for entries in sizes:
            piece: list[Dim] = []
            while (missing := entries // inner - sum(map(size, piece))) > 0:
                part = left.pop(0)
                if size(part) > missing:
                    part, rest = cut(part, [missing, size(part) - missing])
                    left.insert(0, rest)
                piece.append(part)
            parts += piece
            pieces.append(cat(piece) if piece else ())
        lead._parts = tuple(parts)
    return [(*piece, *tail) for piece in pieces]


def equal_parts(dim: Dim, count: int, reason: str) -> list[Dim]:
    """``count`` pieces of one size, tied to each other."""
    first, *others = _pieces(dim, count, reason)
    for other in others:
        unify(first, other)
    return [first, *others]


def _pieces(dim: Dim, count: int, reason: str) -> list[Dim]:
    inside = atoms(dim)
    if inside and not inside[0].parts and inside[0].size % count == 0:
        times, rest = view((dim,), [count, size(dim) // count])
        pin(times, reason)
        return [rest] * count
    return cut(dim, [size(dim) // count] * count)


def view(shape: Shape, sizes: Sequence[int]) -> Shape:
    """The same atoms in row-major order under other dimensions; all keep their size where they cannot be told apart.

    Raises:
        ValueError: the sizes do not fit.
    """
    sizes = [max(entries, 1) for entries in sizes]
    if math.prod(map(size, shape)) != math.prod(sizes):
        raise ValueError(f"cannot view {[size(d) for d in shape]} as {list(sizes)}")
    try:
        return _view(shape, sizes)
    except _Uncut:
        for dim in shape:
            pin(dim, CUT)
        return tuple(new(entries, CUT) for entries in sizes)


def _view(shape: Shape, sizes: Sequence[int]) -> Shape:
    rest = [atom for dim in shape for atom in atoms(dim)]
    result: list[Dim] = []
    for want in sizes:
        dim: list[Atom] = []
        while (missing := want // size(tuple(dim))) > 1:
            first = atoms((rest.pop(0),))
            if len(first) != 1:
                rest[:0] = first
            elif first[0].size > missing:
                rest[:0] = _split(first[0], missing)
            else:
                dim.append(first[0])
        if size(tuple(dim)) != want:
            raise _Uncut
        result.append(tuple(dim))
    return tuple(result)


# Which entry belongs to whom ------------------------------------------------------------------------


def units(dim: Dim, atom: Atom) -> Tensor:
    """For each entry of a dimension the unit of ``atom`` that it belongs to, or -1: int64 of shape (size,)."""
    result = torch.full((1,), -1)
    for own in atoms(dim):
        if own is atom:
            inside = torch.arange(own.size)
        elif own.parts:
            inside = torch.cat([units(part, atom) for part in own.parts])
        else:
            inside = torch.full((own.size,), -1)
        result = torch.where(inside >= 0, inside, result[:, None]).flatten()
    return result


def positions(dim: Dim, atom: Atom) -> Tensor:
    """The entries of each unit of ``atom``, in order: int64 of shape (width, entries a unit)."""
    owner = units(dim, atom)
    return owner.argsort(stable=True)[int((owner < 0).sum()) :].view(atom.size, -1)


def resized(dim: Dim, chosen: dict[Atom, Tensor]) -> Tensor:
    """The entries of a dimension after a resize, in order, as the entry that each was before; -1 for a new one.

    Args:
        dim: the dimension as it is before.
        chosen: for each atom that changes, its units afterwards as indices of those before; -1 for a new unit.

    Returns:
        int64 of shape (new size,).
    """
    inside = atoms(dim)
    if len(inside) == 1 and inside[0] in chosen:
        return chosen[inside[0]]
    result = torch.zeros(1, dtype=torch.int64)
    for own in inside:
        if own in chosen:
            entries = chosen[own]
        elif own.parts:
            pieces, start = [], 0
            for part in own.parts:
                piece = resized(part, chosen)
                pieces.append(torch.where(piece >= 0, piece + start, -1))
                start += size(part)
            entries = torch.cat(pieces)
        else:
            entries = torch.arange(own.size)
        both = (result[:, None] >= 0) & (entries >= 0)
        result = torch.where(both, result[:, None] * own.size + entries, -1).flatten()
    return result
