"""Sessions: what their tokens carry, how long they last, and which roles may be assumed."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace

import pytest
from support.bare_cloud import OTHER, ROOT, BareCloud

from minicloud.clock import MICROSECONDS
from minicloud.cloud import accounts, bootstrap, sessions
from minicloud.cloud.context import Caller
from minicloud.errors import ApiError

ROLE = f"arn:aws:iam::{ROOT.account_id}:role/deploy"


def speaker(bare: BareCloud, credentials: sessions.Credentials) -> Caller:
    """Who speaks through credentials."""
    found = accounts.find_signing_key(bare.cloud, credentials.access_key_id, credentials.session_token)
    assert found is not None
    assert found.secret_access_key == credentials.secret_access_key
    assert found.expires_us == credentials.expires_us
    return found.caller


def refused(bare: BareCloud, *arguments: object) -> tuple[str, int, str]:
    with pytest.raises(ApiError) as caught:
        sessions.assume_role(bare.cloud, *arguments)  # type: ignore[arg-type]
    return caught.value.code, caught.value.status, caught.value.message


def test_a_session_token_speaks_for_who_asked(empty: BareCloud) -> None:
    made = sessions.get_session_token(empty.cloud, ROOT, None)
    assert re.fullmatch("ASIA[A-Z2-7]{16}", made.access_key_id)
    assert re.fullmatch("[A-Za-z0-9+/]{40}", made.secret_access_key)
    assert speaker(empty, made) == Caller(
        ROOT.account_id, ROOT.region, ROOT.account_id, f"arn:aws:iam::{ROOT.account_id}:root", is_temporary=True
    )


def test_nothing_of_a_session_can_be_read_in_its_token(empty: BareCloud) -> None:
    made = sessions.get_session_token(empty.cloud, ROOT, None)
    assert made.secret_access_key not in made.session_token
    assert made.access_key_id not in made.session_token


@pytest.mark.parametrize(("asked", "lasts"), [(None, 43_200), (900, 900), (129_600, 129_600)])
def test_a_session_lasts_as_long_as_was_asked(empty: BareCloud, asked: int | None, lasts: int) -> None:
    made = sessions.get_session_token(empty.cloud, ROOT, asked)
    assert made.expires_us == empty.clock.now_us() + lasts * MICROSECONDS


@pytest.mark.parametrize(("asked", "lasts"), [(None, 3_600), (900, 900), (43_200, 43_200)])
def test_a_role_lasts_as_long_as_was_asked(empty: BareCloud, asked: int | None, lasts: int) -> None:
    made = sessions.assume_role(empty.cloud, ROOT, ROLE, "me", asked).credentials
    assert made.expires_us == empty.clock.now_us() + lasts * MICROSECONDS


def test_a_session_ends_at_a_whole_second(empty: BareCloud) -> None:
    empty.clock.advance(0.7)
    assert sessions.get_session_token(empty.cloud, ROOT, 900).expires_us % MICROSECONDS == 0


def test_a_token_is_still_known_for_what_it_was_after_its_end(empty: BareCloud) -> None:
    made = sessions.get_session_token(empty.cloud, ROOT, 900)
    empty.clock.advance(10 * 365 * 86_400)
    assert sessions.open_session(empty.cloud, made.access_key_id, made.session_token) is not None


def test_a_token_is_known_also_to_a_clock_that_was_set_back(empty: BareCloud) -> None:
    made = sessions.get_session_token(empty.cloud, ROOT, 900)
    empty.clock.jump_wall(-3600)
    assert sessions.open_session(empty.cloud, made.access_key_id, made.session_token) is not None


def test_a_session_outlives_the_daemon_that_gave_it_out(empty: BareCloud) -> None:
    made = sessions.get_session_token(empty.cloud, ROOT, 900)
    restarted = replace(empty.cloud, random_bytes=secrets.token_bytes)
    assert restarted.seals is not empty.cloud.seals
    assert sessions.open_session(restarted, made.access_key_id, made.session_token) is not None


def test_an_assumed_role_speaks_for_itself(empty: BareCloud) -> None:
    made = sessions.assume_role(empty.cloud, ROOT, f"arn:aws:iam::{ROOT.account_id}:role/a/path/deploy", "me@host", 900)
    assert made.arn == f"arn:aws:sts::{ROOT.account_id}:assumed-role/deploy/me@host"
    assert re.fullmatch("AROA[A-Z2-7]{17}:me@host", made.id)
    identity = accounts.get_caller_identity(empty.cloud, speaker(empty, made.credentials))
    assert (identity.account_id, identity.user_id, identity.arn) == (ROOT.account_id, made.id, made.arn)


def test_a_role_always_has_the_same_id(empty: BareCloud) -> None:
    first, again, other = (
        sessions.assume_role(empty.cloud, ROOT, arn, "me", None).id for arn in (ROLE, ROLE, ROLE + "er")
    )
    assert first == again != other


def test_a_role_of_another_account_is_not_ours_to_give(empty: BareCloud) -> None:
    arn = f"arn:aws:iam::{OTHER.account_id}:role/deploy"
    said = f"User: {ROOT.arn} is not authorized to perform: sts:AssumeRole on resource: {arn}"
    assert refused(empty, ROOT, arn, "me", None) == ("AccessDenied", 403, said)


@pytest.mark.parametrize(
    "arn",
    [
        "deploy-role-of-this-account",
        f"arn:aws:iam::{ROOT.account_id}:user/deploy",
        f"arn:aws:iam::{ROOT.account_id}:role/",
        f"arn:aws:iam::{ROOT.account_id}:role/a b",
        f"arn:aws:iam::{ROOT.account_id}:role/deploy\n",
        "arn:aws:iam::1:role/deploy",
        "arn:aws:iam::１00000000001:role/deploy",
        f"arn:aws:iam::{ROOT.account_id}:role/{'x' * 65}",
    ],
)
def test_what_is_no_role_is_refused(empty: BareCloud, arn: str) -> None:
    code, status, message = refused(empty, ROOT, arn, "me", None)
    assert (code, status) == ("ValidationError", 400)
    assert message.endswith(" is invalid")


@pytest.mark.parametrize("name", ["a b", "a/b", "é-", "me\n", "m", "x" * 65])
def test_a_session_name_has_few_characters(empty: BareCloud, name: str) -> None:
    code, _, message = refused(empty, ROOT, ROLE, name, None)
    assert code == "ValidationError"
    assert "at 'roleSessionName' failed to satisfy constraint" in message


def test_roles_are_chained_for_an_hour_at_most(empty: BareCloud) -> None:
    caller = speaker(empty, sessions.get_session_token(empty.cloud, ROOT, None))
    chained = sessions.assume_role(empty.cloud, caller, ROLE, "me", 3_600)
    further = sessions.assume_role(empty.cloud, speaker(empty, chained.credentials), ROLE, "me", None)
    assert further.credentials.expires_us == empty.clock.now_us() + 3_600 * MICROSECONDS
    code, _, message = refused(empty, caller, ROLE, "me", 3_601)
    assert (code, "role chaining" in message) == ("ValidationError", True)


def test_sessions_beget_no_session_tokens(empty: BareCloud) -> None:
    for made in (
        sessions.get_session_token(empty.cloud, ROOT, None),
        sessions.assume_role(empty.cloud, ROOT, ROLE, "me", None).credentials,
    ):
        with pytest.raises(ApiError, match="Cannot call GetSessionToken with session credentials") as caught:
            sessions.get_session_token(empty.cloud, speaker(empty, made), None)
        assert (caught.value.code, caught.value.status) == ("AccessDenied", 403)


def test_a_key_without_its_own_token_is_nobodys(empty: BareCloud) -> None:
    cloud = replace(empty.cloud, random_bytes=secrets.token_bytes)  # or both would have the same key
    one, other = (sessions.get_session_token(cloud, ROOT, None) for _ in range(2))
    lasting = bootstrap.ensure_root(cloud).access_key.id
    page = cloud.seals.seal("page", {"key": one.access_key_id})
    spoilt = [one.session_token + more for more in ("x", "=", "\n", "=AAAA", "é")] + [f"!{one.session_token}"]
    for token in (None, other.session_token, one.session_token[:-2], "", "é", "x" * 5000, page, *spoilt):
        assert accounts.find_signing_key(cloud, one.access_key_id, token) is None
    for token in (one.session_token, ""):
        assert accounts.find_signing_key(cloud, lasting, token) is None
