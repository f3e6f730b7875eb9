"""E-mails and phone numbers in their one form."""

import unicodedata

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from leads.contact import ContactInvalid, dedupe_key, email_key, is_region, normalise_email, normalise_phone


@pytest.mark.parametrize(
    ("given", "stored", "compared"),
    [
        ("ada@example.com", "ada@example.com", "ada@example.com"),
        ("Ada.Lovelace@EXAMPLE.com", "Ada.Lovelace@example.com", "ada.lovelace@example.com"),
        ("ada@bücher.example.com", "ada@bücher.example.com", "ada@xn--bcher-kva.example.com"),
        ("ada@xn--bcher-kva.example.com", "ada@bücher.example.com", "ada@xn--bcher-kva.example.com"),
        # One letter, written as one code point and as two.
        ("zoe\u0301@example.com", "zo\u00e9@example.com", "zo\u00e9@example.com"),
    ],
)
def test_an_email_has_one_stored_and_one_compared_form(given: str, stored: str, compared: str) -> None:
    assert normalise_email(given) == stored
    assert email_key(stored) == email_key(unicodedata.normalize("NFD", stored)) == compared
    assert normalise_email(stored) == stored


@pytest.mark.parametrize(
    "text", ["", "ada", "ada@", "@example.com", "a b@example.com", "ada@example", "a@b@c.com", "ada@-x.com"]
)
def test_what_is_no_email_is_refused(text: str) -> None:
    with pytest.raises(ContactInvalid):
        normalise_email(text)


@pytest.mark.parametrize(
    ("given", "region", "stored"),
    [
        ("(415) 555-0100", "US", "+14155550100"),
        ("+1 415 555 0100", "DE", "+14155550100"),
        ("030 901820", "DE", "+4930901820"),
        ("+49 30 901820", "ZZ", "+4930901820"),
        ("+15551234567", "US", "+15551234567"),
    ],
)
def test_a_phone_becomes_e164(given: str, region: str, stored: str) -> None:
    assert normalise_phone(given, region) == stored
    assert normalise_phone(stored, "ZZ") == stored


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("", "US"),
        ("hello", "US"),
        ("555-0100", "US"),  # without its area code it can be dialled only from nearby
        ("123", "US"),
        ("415 555 0100", "ZZ"),
        ("+1415555010012345", "US"),
        ("+999 123456", "US"),
        ("+1 415 555 0100 ext. 7", "US"),
        ("1" * 65, "US"),
    ],
)
def test_what_is_no_phone_is_refused(text: str, region: str) -> None:
    with pytest.raises(ContactInvalid):
        normalise_phone(text, region)


def test_a_lead_is_told_apart_by_its_email_and_only_without_one_by_its_phone() -> None:
    assert dedupe_key("Ada@example.com", "+14155550100") == "ada@example.com"
    assert dedupe_key(None, "+14155550100") == "+14155550100"
    assert dedupe_key(None, None) is None


def test_regions_are_two_capital_letters_of_a_country() -> None:
    assert is_region("US")
    assert not any(is_region(text) for text in ("us", "ZZ", "USA", "", "001"))


LOCALS = st.text(alphabet='aZ0._+-\u00e9\u0301 @"', max_size=70)
DOMAINS = st.sampled_from(
    [
        "example.com",
        "EXAMPLE.com",
        "example",
        "b\u00fccher.example",
        "xn--bcher-kva.example",
        "-a.com",
        "a..com",
        "[127.0.0.1]",
        "",
        "x" * 64 + ".com",
        ".".join(["a" * 60] * 4),
    ]
)


@given(local=LOCALS, domain=DOMAINS)
def test_the_short_way_for_plain_addresses_gives_what_the_library_gives(local: str, domain: str) -> None:
    text = f"{local}@{domain}"
    try:
        expected = validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        with pytest.raises(ContactInvalid):
            normalise_email(text)
    else:
        assert normalise_email(text) == expected
