"""The methods of Tables 1 and 2 by name. `variants` in params.yaml lists those to train.

To add one, write a module next to this one with a class that implements `pipeline.methods.base.Method`, and add an entry here.
Classes are given by import path, so that a run depends only on the module of its own method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MethodSpec:
    """One row of the tables.

    Attributes
    ----------
    kind : str
        "module:Class" of a Method.
    label : str
        Display name in figures and tables.
    switches : mapping
        Constructor arguments that select this row.
    trains_as : str or None
        A row that trains to identical weights under equal settings; the two differ only in how a map is read.
    temperature_of : str or None
        A row whose `temperature` this one must have.
    table_1, table_2 : str or None
        Name of the row in the paper's tables; None if a table does not have it. Rows are in the order of METHODS.
    """

    kind: str
    label: str
    switches: Mapping[str, Any] = field(default_factory=dict)
    trains_as: str | None = None
    temperature_of: str | None = None
    table_1: str | None = None
    table_2: str | None = None

    @property
    def module(self) -> str:
        """Module of the class."""
        return self.kind.partition(":")[0]


_DSOL = "pipeline.methods.dsol.method:Dsol"
_ITERATIVE = "pipeline.methods.iterative:Iterative"
_MSSL, _UNLABELED = "pipeline.methods.mssl.method:MSSL", "pipeline.methods.mssl.method:UnlabeledMSSL"
_EQ2, _EQ2_EQ1 = {"eq2": True}, {"eq2": True, "eq1": True}


def _mssl_stage1(kind: str, label: str, switches: Mapping[str, Any], trains_as: str | None = None) -> MethodSpec:
    return MethodSpec(kind, label, switches, trains_as, table_2=label)


METHODS: dict[str, MethodSpec] = {
    "attention": MethodSpec("pipeline.methods.attention:Attention", "Attention", table_1="Attention"),
    "dmc": MethodSpec("pipeline.methods.dmc:Dmc", "DMC", table_1="DMC"),
    "mssl": MethodSpec(_MSSL, "MSSL", {"stage_two": True}, table_1="MSSL", table_2="MSSL"),
    "mssl_stage1": _mssl_stage1(_MSSL, "MSSL stage I", {}),
    "mssl_stage1_unlabeled": _mssl_stage1(_UNLABELED, "MSSL stage I w/o labels", {}),
    "mssl_stage1_eq2": _mssl_stage1(_MSSL, "MSSL stage I w/ Eq. 2", _EQ2, "mssl_stage1"),
    "mssl_stage1_unlabeled_eq2": _mssl_stage1(
        _UNLABELED, "MSSL stage I w/o labels w/ Eq. 2", _EQ2, "mssl_stage1_unlabeled"
    ),
    "mssl_stage1_eq2_eq1": _mssl_stage1(_MSSL, "MSSL stage I w/ Eq. 2 and 1", _EQ2_EQ1, "mssl_stage1"),
    "mssl_stage1_unlabeled_eq2_eq1": _mssl_stage1(
        _UNLABELED, "MSSL stage I w/o labels w/ Eq. 2 and 1", _EQ2_EQ1, "mssl_stage1_unlabeled"
    ),
    "dsol": MethodSpec(_DSOL, "DSOL, stage two with CAM", {"two_stage": False}, table_1="DSOL"),
    "dsol_two_stage": MethodSpec(_DSOL, "DSOL, two stages", {"two_stage": True}),
    "untouched": MethodSpec(
        "pipeline.methods.contrastive:Untouched", "initialized, untouched",
        table_1="Initialized, untouched", table_2="Initialized, untouched",
    ),
    "initial": MethodSpec(
        "pipeline.methods.contrastive:Contrastive", "initial (Eq. 3)", table_2="Ours: initial"
    ),
    "initial_matched": MethodSpec(
        "pipeline.methods.contrastive:Contrastive", "initial, τ of iterative",
        table_2="Ours: initial, τ of the last row", temperature_of="iterative",
    ),
    "itr": MethodSpec(
        _ITERATIVE, "itr", {"intra": False, "inter": False}, table_2="Ours: Itr ✓ Intra × Inter ×"
    ),
    "itr_intra": MethodSpec(
        _ITERATIVE, "itr_intra", {"intra": True, "inter": False}, table_2="Ours: Itr ✓ Intra ✓ Inter ×"
    ),
    "itr_inter": MethodSpec(
        _ITERATIVE, "itr_inter", {"intra": False, "inter": True}, table_2="Ours: Itr ✓ Intra × Inter ✓"
    ),
    "iterative": MethodSpec(
        _ITERATIVE, "iterative (Eq. 7)", {"intra": True, "inter": True},
        table_1="Ours", table_2="Ours: Itr ✓ Intra ✓ Inter ✓",
    ),
}  # fmt: skip
