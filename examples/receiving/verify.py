"""Verifies the signatures of Carillon's webhooks, in both formats.

verify.py standard|leicbit SECRET [NOW] < captured.json
"""

import base64
import hashlib
import hmac
import json
import re
import sys
import time

TOLERANCE = 5 * 60  # Seconds. An older request may be one that somebody sends again.


class Refused(ValueError):
    """Why a request is not taken."""


def verify_standard(secret, headers, body, now=None):
    """Takes `whsec_…` or `whpk_…`, headers (names in lower case) and the raw body (bytes)."""
    key = standard_key(secret)
    message_id = header(headers, "webhook-id")
    timestamp = header(headers, "webhook-timestamp")
    signatures = header(headers, "webhook-signature").split(" ")
    check_timestamp("webhook-timestamp", timestamp, now)
    content = f"{message_id}.{timestamp}.".encode() + body
    if secret.startswith("whpk_"):
        fits = any(fits_ed25519(key, content, signature) for signature in signatures)
    else:
        digest = hmac.new(key, content, hashlib.sha256).digest()
        fits = contains(signatures, "v1," + base64.b64encode(digest).decode())
    if not fits:
        raise Refused("no signature matches")


def verify_leicbit(secret, headers, body, now=None):
    """Takes the secret in hex, headers (names in lower case) and the raw body (bytes)."""
    if not re.fullmatch("[0-9a-f]{64}", secret):
        raise Refused("malformed secret")
    first, *signatures = header(headers, "x-leicbit-signature").split(",")
    if not first.startswith("t="):
        raise Refused("malformed header x-leicbit-signature")
    timestamp = first[2:]
    check_timestamp("x-leicbit-signature", timestamp, now)
    # The key is the hex text itself, not the bytes that it stands for.
    digest = hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256)
    if not contains(signatures, "v1=" + digest.hexdigest()):
        raise Refused("no signature matches")


def standard_key(secret):
    kind, _, text = secret.partition("_")
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    # An empty key, of a setting that is missing, is one that everybody has.
    if kind not in ("whsec", "whpk") or len(key) != 32:
        raise Refused("malformed secret")
    return key


def header(headers, name):
    value = headers.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(f"missing header {name}")
    return value


def check_timestamp(name, timestamp, now):
    if not re.fullmatch("[0-9]{1,12}", timestamp):
        raise Refused(f"malformed header {name}")
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE:
        raise Refused("timestamp outside tolerance")


def contains(signatures, expected):
    """Whether one of them is `expected`, in a time that does not tell how much of it fits."""
    return any(hmac.compare_digest(given.encode(), expected.encode()) for given in signatures)


def fits_ed25519(key, content, signature):
    # The standard library has no Ed25519: pip install cryptography
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not signature.startswith("v1a,"):
        return False
    try:
        given = base64.b64decode(signature[4:], validate=True)
        Ed25519PublicKey.from_public_bytes(key).verify(given, content)
    except (ValueError, InvalidSignature):
        return False
    return True


def main(name="", secret=None, now=None, *rest):
    formats = {"standard": verify_standard, "leicbit": verify_leicbit}
    if name not in formats or secret is None or rest or not (now or "0").isdecimal():
        print(__doc__, file=sys.stderr)
        return 2
    try:
        captured = json.loads(sys.stdin.buffer.read())
        headers = {name.lower(): value for name, value in captured["headers"].items()}
        body = captured["body"].encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        print("not a captured request", file=sys.stderr)
        return 1
    try:
        formats[name](secret, headers, body, now and int(now))
    except ValueError as refused:
        print(refused, file=sys.stderr)
        return 1
    print("valid")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
