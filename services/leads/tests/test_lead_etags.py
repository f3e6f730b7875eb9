"""Entity tags: which ones match."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from chassis.errors import PreconditionFailed
from leads.etags import check_match, none_match
from leads.models import Lead


@pytest.fixture
def lead(make_lead: Callable[..., Lead]) -> Lead:
    return replace(make_lead(), version=3, revision=5)


@pytest.mark.parametrize("header", [None, "*", '"3.5"', '"3.4"', '"3"', '"9.9", "3.5"', ' "3.5" '])
def test_if_match_goes_by_the_version_alone(lead: Lead, header: str | None) -> None:
    check_match(header, lead)


@pytest.mark.parametrize("header", ['"2.5"', 'W/"3.5"', "3.5", "", '"33.5"', 'W/"3.5", "4.6"'])
def test_another_version_a_weak_tag_or_none_at_all_is_412_with_the_tag_that_holds(lead: Lead, header: str) -> None:
    with pytest.raises(PreconditionFailed) as caught:
        check_match(header, lead)
    assert caught.value.headers == {"ETag": '"3.5"'}
    assert caught.value.members == {"version": 3}


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ("*", True),
        ('"3.5"', True),
        ('W/"3.5"', True),
        ('"1.1", W/"3.5"', True),
        ('"3.4"', False),
        ("3.5", False),
    ],
)
def test_if_none_match_goes_by_the_whole_tag(lead: Lead, header: str | None, matches: bool) -> None:
    assert none_match(header, lead.etag) is matches
