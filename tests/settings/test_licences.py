"""The strictest licence of several models, contradictions, and licences that users state."""

import itertools

import pytest
from support.messages import raises

from hf_mae.errors import CommandLineError, UsageError
from hf_mae.settings.licences import (
    check_stated_licence,
    combine_licences,
    find_licence_in_text,
    load_licences,
    parse_licence,
)
from hf_mae.settings.messages import SettingsMessage

NC, NC_SA, ND = "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0"


def combine(*ids):
    return combine_licences((name, f"model {number}") for number, name in enumerate(ids))


@pytest.mark.parametrize(
    "ids, strictest",
    [
        ((), None),
        (("mit",), "mit"),
        (("mit", "apache-2.0", "bsd-3-clause"), "apache-2.0"),
        (("apache-2.0", NC), NC),
        (("cc-by-nc-3.0", NC), NC),
        ((NC, NC_SA), NC_SA),
        (("mit", "gpl-3.0"), "gpl-3.0"),
        (("lgpl-3.0", "gpl-3.0", "agpl-3.0"), "agpl-3.0"),
        (("cc-by-4.0", "openrail"), "openrail"),
        (("mit", "other"), "other"),
    ],
)
def test_the_strictest_licence_does_not_depend_on_the_order(ids, strictest):
    assert {combine(*order) for order in itertools.permutations(ids)} == {strictest}


@pytest.mark.parametrize(
    "ids", [("gpl-3.0", NC), ("cc-by-sa-4.0", NC_SA), ("gpl-2.0", "gpl-3.0"), ("gpl-2.0", "apache-2.0"), ("other", NC)]
)
def test_contradictions(ids):
    for order in (ids, ids[::-1]):
        with raises(SettingsMessage.LICENCES_CONTRADICT, first=f"model 0 ({order[0]})"):
            combine(*order)


def test_a_licence_without_derivatives():
    with raises(SettingsMessage.LICENCE_WITHOUT_DERIVATIVES, name="model 1", licence=ND):
        combine("mit", ND)


def test_stated_licences():
    assert check_stated_licence("MIT", None) == "mit" and check_stated_licence("CC BY-NC 4.0", "apache-2.0") == NC
    for stated, inherited in (("mit", NC), ("cc-by-4.0", NC), ("other", NC), ("apache-2.0", "gpl-3.0")):
        with raises(SettingsMessage.LICENCE_TOO_PERMISSIVE, CommandLineError, inherited=inherited):
            check_stated_licence(stated, inherited)
    with raises(SettingsMessage.UNKNOWN_LICENCE, CommandLineError, suggestion=" (did you mean apache-2.0?)"):
        check_stated_licence("apache2.0", None)


def test_a_derived_model_is_never_less_strict_than_its_sources():
    ids = list(load_licences())
    for first, second in itertools.product(ids, ids):
        try:
            assert combine(first, second) == combine(second, first) and combine(first, second) in (first, second)
        except UsageError:
            continue
        assert combine(combine(first, second), first) == combine(first, second)


@pytest.mark.parametrize(
    "text, licence",
    [
        ("Attribution-NonCommercial 4.0 International\n\n====", NC),
        ("MIT License\n\nCopyright (c)", "mit"),
        ("   Apache License\n  Version 2.0", "apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007", "gpl-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007", "lgpl-3.0"),
        ("# SPDX-License-Identifier: GPL-2.0-only", "gpl-2.0"),
        ("All rights reserved.", None),
    ],
)
def test_licence_files(text, licence):
    assert find_licence_in_text(text) == licence
    assert parse_licence(None) is parse_licence("proprietary") is None
