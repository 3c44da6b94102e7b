"""AWS Signature Version 4: boto3 through the gateway to moto, which checks each signature. `-m moto` runs what needs the two."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from captoken import AsyncVerifier, Issuer, Keyring
from captoken.adapters._gateway.credentials import Secret
from captoken.adapters._gateway.opening import configured
from captoken.adapters._gateway.signed import SigV4Writer, unchunked
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters._http.exchange import RequestError
from captoken.adapters.gateway import Gateway, as_bearer
from captoken.keys.files import write_private
from captoken.stores.memory import MemoryLedger
from tests.adapters.serving import listening, origin_of, send, served

TABLE = """
version = 1
[gateway]
keyring = "keyring.json"
[service.s3]
uses = "s3"
url = "{url}"
credential = {{ from = "file:key", as = "sigv4:us-east-1/s3" }}
"""

# --- bodies in signed chunks ----------------------------------------------------------------------

SIGNED = b";chunk-signature=" + b"a" * 64
CHUNKED = {
    "one chunk": b"5\r\nhello\r\n0\r\n\r\n",
    "two, and signed": b"2" + SIGNED + b"\r\nhe\r\n3" + SIGNED + b"\r\nllo\r\n0" + SIGNED + b"\r\n\r\n",
    "with a checksum behind": b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n",
    "without an empty line": b"5\r\nhello\r\n0\r\n",
}
NOT_CHUNKED = {
    "plain": b"hello",
    "without an end": b"5\r\nhello\r\n",
    "too long a chunk": b"6\r\nhello\r\n0\r\n\r\n",
    "too short a chunk": b"4\r\nhello\r\n0\r\n\r\n",
    "something behind": b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "another extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "line feeds alone": b"5\nhello\n0\n\n",
}


@pytest.mark.parametrize("how", CHUNKED)
def test_a_body_in_chunks_is_put_together(how: str) -> None:
    assert unchunked([(b"x-amz-decoded-content-length", b"5")], CHUNKED[how]) == b"hello"
    for stated in ([], [b"6"], [b"5", b"5"], [b"05"]):
        with pytest.raises(RequestError):
            unchunked([(b"x-amz-decoded-content-length", each) for each in stated], CHUNKED[how])


@pytest.mark.parametrize("how", NOT_CHUNKED)
def test_what_two_readers_could_put_together_in_two_ways_is_refused(how: str) -> None:
    with pytest.raises(RequestError):
        unchunked([(b"x-amz-decoded-content-length", b"5")], NOT_CHUNKED[how])


def test_without_the_library_the_file_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    (tmp_path / "gateway.toml").write_text(TABLE.format(url="https://s3.example"))
    with pytest.raises(ValueError, match=r"line 8: service\.s3\.credential: botocore is not installed: pip install botocore"):
        configured(str(tmp_path / "gateway.toml"))
    for place in ("sigv4:", "sigv4:us-east-1", "sigv4:/s3", "sigv4:us east/s3"):
        (tmp_path / "gateway.toml").write_text(TABLE.format(url="https://s3.example").replace("sigv4:us-east-1/s3", place))
        with pytest.raises(ValueError, match=r"a signature as sigv4:REGION/SERVICE"):
            configured(str(tmp_path / "gateway.toml"))


def test_the_signature_of_a_client_is_taken_out_and_no_other_authorization() -> None:
    token = (b"x-amz-security-token", b"cap1_a")
    places = ("header:X-Amz-Security-Token",)
    assert as_bearer([(b"authorization", b"AWS4-HMAC-SHA256 Credential=any"), token], places) == [(b"authorization", b"Bearer cap1_a")]
    # Two of them: refused by whoever reads them.
    assert len(as_bearer([(b"authorization", b"Bearer cap1_b"), token], places)) == 2


# --- boto3 through the gateway --------------------------------------------------------------------


class Cloud:
    """S3, which knows one user. `key`: that user's."""

    def __init__(self, url: str) -> None:
        boto3: Any = import_module("boto3")

        self.url = url
        said: dict[str, Any] = {"endpoint_url": url, "region_name": "us-east-1", "aws_access_key_id": "first", "aws_secret_access_key": "first"}
        iam = boto3.client("iam", **said)
        iam.create_user(UserName="gateway")
        policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="gateway", PolicyName="all", PolicyDocument=policy)
        self._keys = [iam.create_access_key(UserName="gateway")["AccessKey"] for _ in range(2)]
        boto3.client("s3", **said).create_bucket(Bucket="reports")
        # From now on each request is signed by somebody that it knows.
        assert httpx.post(f"{url}/moto-api/reset-auth", content=b"0", trust_env=False).status_code == 200

    def key(self, number: int = 0) -> str:
        return f"{self._keys[number]['AccessKeyId']}:{self.secret(number)}"

    def secret(self, number: int = 0) -> str:
        return str(self._keys[number]["SecretAccessKey"])


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    moto: Any = import_module("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Cloud(f"http://{host}:{port}")
    finally:
        server.stop()


class Agents:
    """A gateway before it, and clients that have tokens."""

    def __init__(self, origin: str, keyring: Keyring, folder: Path) -> None:
        self.origin = origin
        self.folder = folder
        self._issuer = Issuer(keyring)

    def token(self, tools: dict[str, Any]) -> str:
        return self._issuer.mint(subject="user:jane", agent="clerk", task="t", audience="s3", tools=tools).present(audience="s3")

    def client(self, tools: dict[str, Any]) -> Any:
        boto3: Any = import_module("boto3")
        # A secret of its own choice: nobody looks at it.
        config = import_module("botocore.config").Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={})
        return boto3.client(
            "s3", endpoint_url=f"{self.origin}/s3", region_name="us-east-1", config=config, aws_access_key_id="any", aws_secret_access_key="any", aws_session_token=self.token(tools)
        )


@pytest.fixture
def agents(tmp_path: Path, cloud: Cloud) -> Iterator[Agents]:
    write_private(tmp_path / "key", cloud.key().encode())
    keyring = Keyring.generate()
    (tmp_path / "gateway.toml").write_text(TABLE.format(url=cloud.url))
    found = configured(str(tmp_path / "gateway.toml"))
    with ExitStack() as stack:
        listens = listening()
        made = Gateway(found, {"s3": AsyncVerifier(keyring, "s3", ledger=MemoryLedger(floor=0))})
        stack.enter_context(served(made, listens, lifespan="on"))
        yield Agents(origin_of(listens), keyring, tmp_path)


def refused(call: Any, **said: Any) -> int:
    with pytest.raises(Exception, match=r"when calling the") as told:
        call(**said)
    response: Any = vars(told.value)["response"]
    return int(response["ResponseMetadata"]["HTTPStatusCode"])


@pytest.mark.moto
def test_boto3_works_with_a_token_and_each_signature_is_checked(agents: Agents, cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ours = agents.client({"s3.*": {}})
    for key in ("2026/may.csv", "a b/ü+~(1)'.txt", "x=y&z"):
        ours.put_object(Bucket="reports", Key=key, Body=b"region,amount\n", ContentType="text/csv")
        assert ours.get_object(Bucket="reports", Key=key)["Body"].read() == b"region,amount\n"
        assert ours.head_object(Bucket="reports", Key=key)["ContentType"] == "text/csv"
    listed = ours.list_objects_v2(Bucket="reports", Prefix="2026/")
    assert [each["Key"] for each in listed["Contents"]] == ["2026/may.csv"]
    (agents.folder / "up").write_bytes(b"from a file")
    ours.upload_file(str(agents.folder / "up"), "reports", "up")
    ours.download_file("reports", "up", str(agents.folder / "down"))
    assert (agents.folder / "down").read_bytes() == b"from a file"
    ours.delete_object(Bucket="reports", Key="up")
    assert refused(ours.get_object, Bucket="reports", Key="up") == 404
    assert cloud.secret() not in caplog.text
    # Who is none of its users is refused there: signatures are looked at.
    write_private(agents.folder / "key", cloud.key()[:-1].encode() + b"!")
    assert refused(ours.get_object, Bucket="reports", Key="x=y&z") == 403


@pytest.mark.moto
def test_a_token_permits_a_folder_and_what_it_does_not_is_not_sent(agents: Agents) -> None:
    agents.client({"s3.*": {}}).put_object(Bucket="reports", Key="pay/2026", Body=b"secret")
    ours = agents.client({"s3.objects.get": {"bucket": {"in": ["reports"]}, "key": {"path": ["/2026"]}}} | {"s3.objects.put": {"bucket": {"in": ["reports"]}, "key": {"path": ["/2026"]}, "body.size": {"max": 10}, "body.type": {"any": True}}})
    ours.put_object(Bucket="reports", Key="2026/a", Body=b"0123456789")
    assert ours.get_object(Bucket="reports", Key="2026/a")["Body"].read() == b"0123456789"
    assert refused(ours.put_object, Bucket="reports", Key="2026/a", Body=b"0123456789a") == 403
    assert refused(ours.get_object, Bucket="reports", Key="pay/2026") == 403
    assert refused(ours.list_objects_v2, Bucket="reports") == 403
    assert refused(ours.copy_object, Bucket="reports", Key="2026/b", CopySource="reports/pay/2026") == 400
    assert refused(ours.get_object_acl, Bucket="reports", Key="2026/a") in (400, 403)
    assert refused(ours.get_object, Bucket="reports", Key="2026/a", Range="bytes=0-1") == 400


@pytest.mark.moto
def test_a_body_in_chunks_is_judged_whole_and_signed_anew(agents: Agents) -> None:
    token = agents.token({"s3.objects.put": {"bucket": {"in": ["reports"]}, "key": {"in": ["/chunked"]}, "body.size": {"max": 5}, "body.type": {"in": ["text/plain"]}}})
    headers = ["Authorization: AWS4-HMAC-SHA256 Credential=any", f"X-Amz-Security-Token: {token}", "Content-Type: text/plain", "X-Amz-Content-SHA256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "Content-Encoding: aws-chunked"]
    for body in CHUNKED.values():
        assert send(agents.origin, "/s3/reports/chunked", *headers, "X-Amz-Decoded-Content-Length: 5", method="PUT", body=body).status == 200
    for body in NOT_CHUNKED.values():
        assert send(agents.origin, "/s3/reports/chunked", *headers, "X-Amz-Decoded-Content-Length: 5", method="PUT", body=body).status == 400
    longer = b"6\r\nhello!\r\n0\r\n\r\n"
    assert send(agents.origin, "/s3/reports/chunked", *headers, "X-Amz-Decoded-Content-Length: 6", method="PUT", body=longer).status == 403
    assert send(agents.origin, "/s3/reports/chunked", *headers, "Content-Encoding: gzip", method="PUT", body=longer).status == 415
    found = agents.client({"s3.*": {}}).get_object(Bucket="reports", Key="chunked")
    assert found["Body"].read() == b"hello" and "ContentEncoding" not in found


@pytest.mark.moto
def test_a_key_of_aws_is_rotated_and_what_is_none_fails_closed(agents: Agents, cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    ours = agents.client({"s3.*": {}})
    ours.put_object(Bucket="reports", Key="a", Body=b"a")
    write_private(agents.folder / "key", cloud.key(1).encode())
    ours.put_object(Bucket="reports", Key="a", Body=b"echo " + cloud.secret().encode())
    # The first key is not its key any more; its own secret gets through no answer, and its name does.
    assert ours.get_object(Bucket="reports", Key="a")["Body"].read() == b"echo " + cloud.secret().encode()
    ours.put_object(Bucket="reports", Key="a", Body=b"echo " + cloud.secret(1).encode())
    assert refused(ours.get_object, Bucket="reports", Key="a") == 502
    ours.put_object(Bucket="reports", Key="a", Body=b"echo " + cloud.key(1).partition(":")[0].encode())
    ours.get_object(Bucket="reports", Key="a")
    for wrong in (cloud.secret(1), f"{cloud.key(1)}:", f":{cloud.secret(1)}", f"{cloud.key(1)}:a:b"):
        write_private(agents.folder / "key", wrong.encode())
        assert refused(ours.get_object, Bucket="reports", Key="a") == 503
    assert "ID:SECRET" in caplog.text and cloud.secret(1) not in caplog.text


@pytest.mark.moto
def test_a_session_token_goes_out_where_the_key_has_one(cloud: Cloud) -> None:
    for service in ("s3", "dynamodb"):
        out = Outgoing("GET", "/a%20b", "c=d", [(b"x-amz-security-token", b"cap1_of_a_client")], b"")
        writer = SigV4Writer(f"sigv4:eu-central-1/{service}", "https://aws.example")
        writer.write(Secret(text="ID:secret-of-it:session-of-it"), out)
        headers = dict(out.headers)
        assert headers[b"x-amz-security-token"] == b"session-of-it" and len(headers) == len(out.headers)
        assert f"/eu-central-1/{service}/aws4_request".encode() in headers[b"authorization"] and b"x-amz-security-token" in headers[b"authorization"]
        assert [each.text for each in writer.hidden(Secret(text="ID:secret-of-it:session-of-it"))] == ["secret-of-it", "session-of-it"]
        assert "secret" not in repr(out) + repr(writer)
