"""When a certificate ends: the one field of it that an operator must not forget.

Python's ssl shows it of peers only, so the few steps of DER that lead there are taken here.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Final

_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----"
)
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION: Final = 0xA0


def not_after(pem: bytes) -> float:
    """Seconds since 1970 at which the first certificate in *pem* ends; 0.0 when it has none."""
    found = _PEM.search(pem)
    if found is None:
        return 0.0
    try:
        return _not_after(base64.b64decode(found[1]))
    except (ValueError, IndexError):
        return 0.0


def _not_after(der: bytes) -> float:
    """RFC 5280, section 4.1: version?, serial, signature, issuer, validity (from, until)."""
    _, certificate, _ = _element(der)
    _, fields, _ = _element(certificate)
    tag, _, rest = _element(fields)
    skipped = 3 if tag == _VERSION else 2  # the serial is behind the version, or was just read
    for _ in range(skipped):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, until = _element(validity)
    tag, text, _ = _element(until)
    return _time(tag, text.decode("ascii"))


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the element at the start of *der*, and what follows it."""
    length, start = der[1], 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[2 : 2 + size], "big"), 2 + size
    if start + length > len(der):
        raise ValueError("cut short")
    return der[0], der[start : start + length], der[start + length :]


def _time(tag: int, text: str) -> float:
    if tag == _UTC_TIME:
        # RFC 5280, section 4.1.2.5.1: two digits from 50 on are of the last century.
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
