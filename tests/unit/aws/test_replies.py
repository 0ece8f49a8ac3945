from __future__ import annotations

import pytest

from minicloud.aws.models import Catalog
from minicloud.aws.replies import failure, internal_error, success
from minicloud.errors import ApiError

ERROR = ApiError("InvalidInstanceID.NotFound", "The instance ID 'i-<1>' does not exist")


def test_ec2s_error_envelope(catalog: Catalog) -> None:
    expected = (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code>'
        b"<Message>The instance ID 'i-&lt;1&gt;' does not exist</Message></Error></Errors>"
        b"<RequestID>r-1</RequestID></Response>"
    )
    for service in (catalog.services["ec2"], None):
        reply = failure(service, ERROR, request_id="r-1")
        assert (reply.status, reply.body) == (400, expected)


@pytest.mark.parametrize(("status", "blame"), [(400, "Sender"), (403, "Sender"), (500, "Receiver"), (503, "Receiver")])
def test_the_query_error_envelope(catalog: Catalog, status: int, blame: str) -> None:
    reply = failure(catalog.services["sts"], ApiError("Code", "Message", status), request_id="r-1")
    assert reply.status == status
    assert reply.body.decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<Error><Type>{blame}</Type><Code>Code</Code><Message>Message</Message></Error>"
        "<RequestId>r-1</RequestId></ErrorResponse>"
    )


def test_every_answer_carries_its_request_id_and_type(catalog: Catalog) -> None:
    operation = catalog.operation("ec2", "DeleteVolume")
    for reply in (
        success(operation, None, request_id="r-1", version="2016-11-15"),
        failure(operation.service, ERROR, request_id="r-1"),
    ):
        headers = dict(reply.headers)
        assert headers["x-amzn-RequestId"] == "r-1"
        assert headers["Content-Type"] == "text/xml;charset=UTF-8"
        assert headers["Cache-Control"] == "no-cache, no-store"
        assert b"r-1" in reply.body


def test_a_bug_is_told_in_general_words(catalog: Catalog) -> None:
    ec2, other = internal_error(catalog.services["ec2"]), internal_error(catalog.services["sts"])
    assert (ec2.code, ec2.status, ec2.message) == ("InternalError", 500, "An internal error has occurred")
    assert (other.code, other.status) == ("InternalFailure", 500)
    assert internal_error(None).code == "InternalError"
