"""What strangers write to a login is read, or refused by the one exception: queries, forms, documents, cookies, codes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from captoken.adapters._issuance.form import CodeRequest, read_code
from captoken.adapters._issuance.offers import Asked, read_asked
from captoken.adapters._issuance.sessions import Cookies, Session, Text
from captoken.errors import IssuanceError
from captoken.issuance.applications import Application, address_of, application_in

NAMES = st.sampled_from(["response_type", "client_id", "redirect_uri", "code_challenge", "code_challenge_method", "state", "scope", "grant_type", "code",
                         "refresh_token", "code_verifier", "resource", "client_secret", "x"])  # fmt: skip
VALUES = st.one_of(st.text(max_size=50), st.sampled_from(["code", "S256", "x" * 43, "authorization_code", "refresh_token", "https://app.example/back"]))
FORMS = st.one_of(st.binary(max_size=300), st.lists(st.tuples(NAMES, VALUES), max_size=9).map(lambda pairs: urlencode(pairs, errors="replace").encode()))
URLS = st.text(st.sampled_from("htps:/[]@.#?%\\\x00 aA0127é-_~"), max_size=40).map(lambda rest: f"https://{rest}")


@given(FORMS)
def test_queries_and_forms_are_read_or_refused(data: bytes) -> None:
    for read, kind in ((read_asked, Asked), (lambda form: read_code(form, ()), CodeRequest | None)):
        try:
            found: Any = read(data)  # type: ignore[operator]
        except IssuanceError as error:
            assert error.code
        else:
            assert isinstance(found, kind)


@given(URLS)
def test_an_address_is_given_back_as_it_was_written(text: str) -> None:
    found = address_of(text)
    assert found is None or (found.origin + found.rest == text and found.host.isascii())
    assert found is None or not ("@" in found.origin or set("\\#") & set(text) or found.rest[:1] not in ("", "/"))


@given(st.one_of(st.binary(max_size=200), st.dictionaries(st.text(max_size=20), st.integers() | st.text() | st.lists(st.text())).map(lambda one: json.dumps(one).encode())))
def test_a_document_describes_an_application_or_none(data: bytes) -> None:
    try:
        assert isinstance(application_in("https://app.example/c", data), Application)
    except IssuanceError as error:
        assert error.code == "invalid_client"


@given(st.text(max_size=120), st.binary(max_size=120))
def test_cookies_forms_and_codes_of_nobody_open_nothing(text: str, data: bytes) -> None:
    session = Session.fresh()
    assert session.opened("consent", text) is None and Session.fresh().opened("consent", session.sealed("consent", text)) is None
    assert session.opened("consent", session.sealed("consent", text)) == text and session.opened("end", session.sealed("consent", text)) is None
    found = Text.read(text)
    assert found is None or found.text() == text
    for cookies in (Cookies(True), Cookies(False)):
        name = cookies.keep(session, 60)[1].partition(b"=")[0]
        for value in (data, data + b"; " + name + b"=" + data):
            scope: Any = {"headers": [(b"cookie", name + b"=" + value)]}
            assert cookies.session(scope) is None or len(data) >= 43
            assert cookies.attempt(scope, text) is None


def test_of_two_cookies_of_one_name_neither_counts() -> None:
    """A neighbour may have set one: it is not known which."""
    cookies, session = Cookies(True), Session.fresh()
    one, _, rest = cookies.keep(session, 60)[1].partition(b";")
    assert one.startswith(b"__Host-") and {b" Path=/", b" HttpOnly", b" SameSite=Lax", b" Secure"} <= set(rest.split(b";"))
    assert cookies.session({"headers": [(b"cookie", one)]}) is not None
    assert cookies.session({"headers": [(b"cookie", one + b"; " + one)]}) is None
    assert cookies.session({"headers": [(b"cookie", one), (b"cookie", one)]}) is None
