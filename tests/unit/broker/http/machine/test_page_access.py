"""Who may see the page: codes that work once, and visits that prove themselves."""

from __future__ import annotations

import hmac
import itertools

import pytest

from mempalace_broker.broker.http.machine.page_access import CODE_S, VISIT_S, PageAccess, Visit

NOW = 1_795_000_000.0
SECRET = "d1" * 32


def access(secret: str = SECRET) -> PageAccess:
    numbers = itertools.count(1)
    made = PageAccess(lambda: next(numbers).to_bytes(16, "big"))
    made.secret = secret
    return made


def visit(page: PageAccess) -> Visit:
    found = page.redeem(page.new_code(NOW), NOW)
    assert found is not None
    return found


def test_a_code_works_once_and_for_a_minute() -> None:
    page = access()
    code = page.new_code(NOW)
    assert page.redeem("0" * 32, NOW) is None
    assert page.redeem(code, NOW + CODE_S - 0.1) is not None
    assert page.redeem(code, NOW) is None
    late = page.new_code(NOW)
    assert page.redeem(late, NOW + CODE_S) is None
    assert page.redeem(late, NOW) is None, "it was tried"


def test_few_codes_are_kept() -> None:
    page = access()
    codes = [page.new_code(NOW) for _ in range(17)]
    assert page.redeem(codes[0], NOW) is None
    assert page.redeem(codes[-1], NOW) is not None


def test_a_visit_lasts_for_a_day_and_through_a_restart() -> None:
    seen = visit(access())
    page = access()  # of the next broker
    assert page.permits(*seen, NOW + VISIT_S - 1)
    assert not page.permits(*seen, NOW + VISIT_S)


def test_another_secret_ends_all_visits() -> None:
    seen = visit(access())
    assert not access("e2" * 32).permits(*seen, NOW)
    assert not access("").permits(*seen, NOW)
    assert access("").redeem(access("").new_code(NOW), NOW) is None


@pytest.mark.parametrize("cookie", ["", ".", "..", "x", "9" * 300, "99999999999.aa.bb", "\u00b2.a.b"])
def test_what_is_no_cookie(cookie: str) -> None:
    assert not access().permits(cookie, visit(access()).key, NOW)


def test_neither_is_enough_nor_those_of_two_visits() -> None:
    page = access()
    one, other = visit(page), visit(page)
    assert page.permits(*one, NOW)
    assert not page.permits(one.cookie, "", NOW)
    assert not page.permits(one.cookie, one.cookie, NOW)
    assert not page.permits(one.cookie, other.key, NOW)
    until, number, mac = one.cookie.split(".")
    assert not page.permits(f"{int(until) + 1}.{number}.{mac}", one.key, NOW)


def test_we_prove_that_we_know_the_key_to_our_cookies_alone() -> None:
    page = access()
    seen = visit(page)
    proof = hmac.digest(seen.key.encode(), b"8765 nonce", "sha256").hex()
    assert access().proof(seen.cookie, "8765 nonce", NOW) == proof, "the next broker knows it, too"
    assert page.proof(seen.cookie, "8766 nonce", NOW) not in ("", proof)
    assert page.proof(seen.cookie, "8765 nonce", NOW + VISIT_S) == ""
    assert page.proof(f"{seen.cookie}0", "8765 nonce", NOW) == ""
    assert access("").proof(seen.cookie, "8765 nonce", NOW) == ""
