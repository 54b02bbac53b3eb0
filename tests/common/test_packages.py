"""Packages that only some commands need."""

from __future__ import annotations

import json

import pytest

from pipeline.common.errors import PackageError
from pipeline.common.packages import load_package


def test_an_installed_module_is_returned():
    assert load_package("json", purpose="this test", extra="test") is json


def test_a_missing_package_is_one_line_with_the_extra():
    with pytest.raises(
        PackageError, match=r"^the search requires no\.such_package \(.*'no'.*\); pip install -e '\.\[search\]'$"
    ):
        load_package("no.such_package", purpose="the search", extra="search")
