"""E-mail addresses and phone numbers in the one form in which they are stored and compared."""

import re
import unicodedata
from functools import lru_cache
from typing import ClassVar, Final

import idna
import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

MAX_EMAIL_LENGTH: Final = 254
MAX_PHONE_LENGTH: Final = 64
NO_REGION: Final = "ZZ"
"""Unknown, by its name in Unicode's CLDR: for numbers that bring their country's code."""


# A dot-atom of RFC 5322 in ASCII, at most as long as RFC 5321 allows.
_PLAIN_LOCAL: Final = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*", re.ASCII)


class ContactInvalid(ValueError):
    """The text cannot be stored as what it should be; the message is for whoever sent it."""

    field: ClassVar[str]


class EmailInvalid(ContactInvalid):
    """No e-mail address."""

    field = "email"


class PhoneInvalid(ContactInvalid):
    """No phone number."""

    field = "phone"


def normalise_email(text: str) -> str:
    """The address as it is stored: Unicode NFC, domain in lower case (RFC 6531, RFC 5891). No DNS is asked."""
    local, at, domain = text.rpartition("@")
    if at and len(text) <= MAX_EMAIL_LENGTH and _PLAIN_LOCAL.fullmatch(local):
        # Nearly all: nothing in such a local part depends on its domain, and domains repeat.
        return f"{local}@{_normalise_domain(domain)}"
    return _normalise_any(text)


@lru_cache(maxsize=4096)
def _normalise_domain(domain: str) -> str:
    return _normalise_any(f"x@{domain}").removeprefix("x@")


def _normalise_any(text: str) -> str:
    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise EmailInvalid(str(error)) from error


def normalise_phone(text: str, region: str) -> str:
    """The number in E.164, read as one of `region` (ISO 3166-1 alpha-2) unless it starts with `+`.

    The length must be possible for its country. Whether the number is assigned is not judged: the library's list of
    assigned ranges is older than the newest of them, and a lead turned away is lost.
    """
    if len(text) > MAX_PHONE_LENGTH:
        raise PhoneInvalid(f"A phone number has at most {MAX_PHONE_LENGTH} characters.")
    try:
        number = phonenumbers.parse(text, region)
    except NumberParseException as error:
        raise PhoneInvalid(
            f"Not a phone number of {region}, nor one that starts with + and a country's code."
        ) from error
    if number.extension:
        raise PhoneInvalid("An extension can't be stored with a phone number.")
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        raise PhoneInvalid(
            f"Too short or too long for a phone number (read as one of {region} unless it starts with +)."
        )
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def is_region(text: str) -> bool:
    """True for an ISO 3166-1 alpha-2 code whose numbers are known."""
    return text in phonenumbers.SUPPORTED_REGIONS


def dedupe_key(email: str | None, phone: str | None) -> str | None:
    """What is unique among a workspace's live leads: the e-mail in lower case with its domain in ASCII, else the phone."""
    return email_key(email) if email else phone


def email_key(email: str) -> str:
    """A stored address as it is compared: NFC, lower case, the domain as IDNA 2008 ASCII."""
    local, _, domain = unicodedata.normalize("NFC", email).lower().rpartition("@")
    return f"{local}@{domain if domain.isascii() else idna.encode(domain, uts46=True).decode('ascii')}"
