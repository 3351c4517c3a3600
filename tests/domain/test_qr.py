"""The QR token: what was sealed comes back, and nothing else is ever taken for a token."""

import base64
import string

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.ids import new_ticket_code, pack_ticket_code
from server.domain.qr import QrContent, QrFault, QrKeys, issue, read

RFC4648 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
NOW_MS = 1_750_000_000_000
CODE = "0123456789ABCDEF"
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
KEYS = QrKeys({7: KEY})
EVERY_ID = QrKeys({key_id: bytes([key_id]) * 32 for key_id in range(256)}, current=7)
ENTROPY = bytes(range(100, 120))
ISSUED = issue(KEYS, CODE, now_ms=NOW_MS, ttl_ms=60_000, entropy=ENTROPY)
TOKEN = ISSUED.token


def raw_of(token: str) -> bytes:
    """Decode a token with the standard library, which drops spare bits without a look."""
    return base64.b32decode(token + "=")


def spelled(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=")


def expected_fault(token: str, known_ids: set[int]) -> QrFault:
    """What an altered token must be, told from the layout alone."""
    raw = raw_of(token)
    if spelled(raw) != token or raw[0] != 1:
        return QrFault.MALFORMED
    return QrFault.TAMPERED if raw[1] in known_ids else QrFault.UNKNOWN_KEY


@settings(deadline=None)
@given(
    key=st.binary(min_size=32, max_size=32),
    key_id=st.integers(0, 255),
    code=st.binary(min_size=10, max_size=10).map(new_ticket_code),
    now_ms=st.integers(0, 2**48 - 60_001),
    ttl_ms=st.integers(1, 60_000),
    entropy=st.none() | st.binary(min_size=20, max_size=20),
)
def test_what_was_issued_is_read(
    key: bytes, key_id: int, code: str, now_ms: int, ttl_ms: int, entropy: bytes | None
) -> None:
    keys = QrKeys({key_id: key})
    issued = issue(keys, code, now_ms=now_ms, ttl_ms=ttl_ms, entropy=entropy)
    assert (issued.issued_at_ms, issued.expires_at_ms) == (now_ms, now_ms + ttl_ms)
    assert read(keys, issued.token) == QrContent(code, issued.jti, now_ms + ttl_ms)


def test_a_token_has_the_layout_that_is_written_down() -> None:
    raw = raw_of(TOKEN)
    assert len(raw) == 54
    assert raw[:2] == b"\x01\x07"
    assert raw[2:14] == ENTROPY[:12]
    content = AESGCM(KEY).decrypt(raw[2:14], raw[14:], raw[:2])
    assert content == ENTROPY[12:] + (NOW_MS + 60_000).to_bytes(6, "big") + pack_ticket_code(CODE)
    assert ISSUED.jti == ENTROPY[12:].hex()


def test_a_token_sealed_elsewhere_by_the_same_layout_is_read() -> None:
    head, nonce = b"\x01\x07", bytes(12)
    content = bytes.fromhex("00ff00ff00ff00ff") + (5).to_bytes(6, "big") + pack_ticket_code("Z" * 16)
    token = spelled(head + nonce + AESGCM(KEY).encrypt(nonce, content, head))
    assert read(KEYS, token) == QrContent("Z" * 16, "00ff00ff00ff00ff", 5)


def test_a_token_fits_version_4_at_error_correction_m_in_alphanumeric_mode() -> None:
    assert len(TOKEN) == 87  # version 4 at M holds 90
    assert set(TOKEN) <= set(string.ascii_uppercase + string.digits)


def test_two_tokens_of_one_ticket_share_neither_nonce_nor_jti() -> None:
    tokens = [issue(KEYS, CODE, now_ms=NOW_MS, ttl_ms=60_000) for _ in range(200)]
    assert len({raw_of(each.token)[2:14] for each in tokens}) == 200
    assert len({each.jti for each in tokens}) == 200
    assert all(len(each.jti) == 16 and set(each.jti) <= set("0123456789abcdef") for each in tokens)


@pytest.mark.parametrize("keys", [KEYS, QrKeys({key_id: bytes([key_id]) * 32 for key_id in (7, 6, 5, 135)})])
def test_every_other_character_at_every_place_is_refused_with_its_reason(keys: QrKeys) -> None:
    token = issue(keys, CODE, now_ms=NOW_MS, ttl_ms=60_000).token
    known = {key_id for key_id in range(256) if keys.cipher(key_id)}
    seen: dict[int, set[QrFault]] = {}
    for place, was in enumerate(token):
        for character in RFC4648.replace(was, ""):
            altered = token[:place] + character + token[place + 1 :]
            verdict = read(keys, altered)
            assert verdict is expected_fault(altered, known), altered
            seen.setdefault(place, set()).add(verdict)
    # Characters 0 to 3 hold the version, the key id and four bits of the nonce; the last one the spare bits.
    assert seen[0] == {QrFault.MALFORMED}
    assert all(seen[place] == {QrFault.TAMPERED} for place in range(4, 86))
    assert seen[86] == {QrFault.TAMPERED, QrFault.MALFORMED}


@pytest.mark.parametrize("bit", range(432))
def test_every_single_bit_flip_is_refused_with_its_reason(bit: int) -> None:
    flipped = spelled((int.from_bytes(raw_of(TOKEN), "big") ^ 1 << (431 - bit)).to_bytes(54, "big"))
    if bit < 8:
        assert read(KEYS, flipped) is QrFault.MALFORMED
    elif bit < 16:
        assert read(KEYS, flipped) is QrFault.UNKNOWN_KEY
        assert read(EVERY_ID, flipped) is QrFault.TAMPERED
    else:
        assert read(KEYS, flipped) is QrFault.TAMPERED


@pytest.mark.parametrize("length", [*range(87), 88, 89, 96, 128, 129, 10_000])
def test_a_token_that_is_cut_or_drawn_out_is_malformed(length: int) -> None:
    assert read(KEYS, (TOKEN * 120)[:length]) is QrFault.MALFORMED
    if 0 < length < 87:
        assert read(KEYS, TOKEN[-length:]) is QrFault.MALFORMED


def test_one_token_has_one_spelling() -> None:
    index = RFC4648.index(TOKEN[-1])
    assert index % 8 == 0
    for spare in range(1, 8):
        other = TOKEN[:-1] + RFC4648[index + spare]
        assert raw_of(other) == raw_of(TOKEN)
        assert read(KEYS, other) is QrFault.MALFORMED
    assert read(KEYS, TOKEN + "=") is QrFault.MALFORMED


def test_lower_case_and_white_space_around_are_accepted() -> None:
    content = read(KEYS, TOKEN)
    assert isinstance(content, QrContent)
    for text in (TOKEN.lower(), TOKEN[:40].lower() + TOKEN[40:], f"\t {TOKEN}\r\n", f"\u3000{TOKEN}"):
        assert read(KEYS, text) == content


def test_white_space_without_end_is_not_looked_at() -> None:
    assert isinstance(read(KEYS, TOKEN.center(128)), QrContent)
    assert read(KEYS, TOKEN.center(129)) is QrFault.MALFORMED
    assert read(KEYS, " " * 1_000_000 + TOKEN) is QrFault.MALFORMED


@pytest.mark.parametrize(
    "stranger",
    # Among them what int() would take for a digit or skip, and letters whose upper case is ASCII: the dotless
    # i and the long s.
    [*"01 89=-+_.!\x00\n\x7f\x80\xff", "\u0131", "\u017f", "\u0660", "\uff21", "\ud800", "\U0001f3ab"],
)
def test_a_stranger_among_the_characters_is_malformed(stranger: str) -> None:
    for place in (0, 1, 43, 85, 86):
        text = TOKEN[:place] + stranger + TOKEN[place + 1 :]
        if text.strip() == text:
            assert read(KEYS, text) is QrFault.MALFORMED
        assert read(KEYS, "A" + text) is QrFault.MALFORMED
    for letter, lookalike in (("I", "\u0131"), ("S", "\u017f")):
        if letter in TOKEN:
            assert read(KEYS, TOKEN.replace(letter, lookalike)) is QrFault.MALFORMED


@settings(deadline=None, max_examples=300)
@given(
    st.text()
    | st.text(min_size=87, max_size=87)
    | st.text(alphabet=st.characters(codec="ascii"), min_size=87, max_size=87)
    | st.text(alphabet=RFC4648 + RFC4648.lower(), min_size=87, max_size=87)
    | st.lists(st.sampled_from([*"AZ27az\t \n\u3000\u0131\u017f\ud800"]), max_size=140).map("".join)
)
def test_no_text_makes_read_raise_or_succeed(text: str) -> None:
    assert isinstance(read(KEYS, text), QrFault)
    assert isinstance(read(EVERY_ID, text), QrFault)


@settings(deadline=None, max_examples=300)
@given(st.binary(min_size=52, max_size=52))
def test_what_only_looks_like_a_token_is_tampered(rest: bytes) -> None:
    assert read(KEYS, spelled(b"\x01\x07" + rest)) is QrFault.TAMPERED


def test_another_key_under_the_same_id_reads_tampered() -> None:
    assert read(QrKeys({7: OTHER_KEY}), TOKEN) is QrFault.TAMPERED


def test_an_id_that_is_not_held_reads_unknown_key() -> None:
    assert read(QrKeys({8: KEY}), TOKEN) is QrFault.UNKNOWN_KEY


def test_the_key_id_is_bound_to_what_it_seals() -> None:
    relabelled = spelled(b"\x01\x08" + raw_of(TOKEN)[2:])
    assert read(QrKeys({8: KEY}), relabelled) is QrFault.TAMPERED


def test_another_version_is_malformed_even_if_sealed_by_our_key() -> None:
    for version in (0, 2, 255):
        head = bytes([version, 7])
        raw = head + bytes(12) + AESGCM(KEY).encrypt(bytes(12), bytes(24), head)
        assert read(KEYS, spelled(raw)) is QrFault.MALFORMED


def test_a_rotation_reads_the_old_key_and_issues_with_the_new_one() -> None:
    rotated = QrKeys({9: OTHER_KEY, 7: KEY})
    assert read(rotated, TOKEN) == QrContent(CODE, ISSUED.jti, ISSUED.expires_at_ms)
    fresh = issue(rotated, CODE, now_ms=NOW_MS, ttl_ms=1000).token
    assert raw_of(fresh)[1] == 9
    assert read(rotated, fresh) == read(QrKeys({9: OTHER_KEY}), fresh)
    assert read(KEYS, fresh) is QrFault.UNKNOWN_KEY
    assert read(QrKeys({9: OTHER_KEY}), TOKEN) is QrFault.UNKNOWN_KEY


def test_a_key_can_be_read_before_it_issues() -> None:
    keys = QrKeys({9: OTHER_KEY, 7: KEY}, current=7)
    assert keys.current == 7
    assert raw_of(issue(keys, CODE, now_ms=NOW_MS, ttl_ms=1).token)[1] == 7


def test_a_token_is_valid_until_the_millisecond_it_expires() -> None:
    content = read(KEYS, TOKEN)
    assert isinstance(content, QrContent)
    assert not content.expired(0)
    assert not content.expired(NOW_MS + 59_999)
    assert content.expired(NOW_MS + 60_000)
    assert content.expired(NOW_MS + 60_001)


def test_expiry_is_not_judged_by_reading() -> None:
    ancient = issue(KEYS, CODE, now_ms=0, ttl_ms=1).token
    distant = issue(KEYS, CODE, now_ms=2**48 - 1 - 60_000, ttl_ms=60_000).token
    for token, expires_at_ms in ((ancient, 1), (distant, 2**48 - 1)):
        content = read(KEYS, token)
        assert isinstance(content, QrContent)
        assert content.expires_at_ms == expires_at_ms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ttl_ms": 0}, "ttl_ms must be from 1 to 60000"),
        ({"ttl_ms": -1}, "ttl_ms must be from 1 to 60000"),
        ({"ttl_ms": 60_001}, "ttl_ms must be from 1 to 60000"),
        ({"now_ms": -1}, "now_ms must be from 0"),
        ({"now_ms": 2**48 - 1000}, "the expiry below"),
        ({"entropy": bytes(19)}, "20 random bytes"),
        ({"entropy": bytes(21)}, "20 random bytes"),
        ({"entropy": b""}, "20 random bytes"),
        ({"ticket_code": "0" * 15}, "a ticket code is 16"),
        ({"ticket_code": "0123456789ABCDEU"}, "a ticket code is 16"),
    ],
)
def test_a_token_outside_the_bounds_is_not_issued(change: dict[str, object], message: str) -> None:
    arguments = {"ticket_code": CODE, "now_ms": NOW_MS, "ttl_ms": 1000} | change
    with pytest.raises(ValueError, match=message):
        issue(KEYS, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "current", "message"),
    [
        ({}, None, "at least one"),
        ({1: bytes(16)}, None, "must be 32 bytes, not 16"),
        ({1: KEY, 2: bytes(33)}, None, "must be 32 bytes, not 33"),
        ({-1: KEY}, None, "from 0 to 255"),
        ({256: KEY}, None, "from 0 to 255"),
        ({1: KEY, 2: KEY}, None, "the same key"),
        ({1: KEY}, 2, "not among the keys"),
    ],
)
def test_keys_that_cannot_be_right_are_refused(
    keys: dict[int, bytes], current: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        QrKeys(keys, current)


def test_a_message_about_keys_never_shows_one() -> None:
    secret = b"a secret of thirty-two bytes....."
    with pytest.raises(ValueError, match="33") as refusal:
        QrKeys({1: secret})
    for text in (str(refusal.value), repr(QrKeys({1: secret[:32]})), str(QrKeys({1: secret[:32]}))):
        assert "secret" not in text
        assert secret.hex()[:16] not in text


def test_faults_are_spelled_as_the_contract_spells_them() -> None:
    assert {fault.value for fault in QrFault} == {"QR_MALFORMED", "QR_TAMPERED", "QR_UNKNOWN_KEY"}
