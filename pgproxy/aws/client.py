"""
What is asked of AWS, by boto3 and botocore: functions that block, each with an end.

Credentials and region come as boto3 finds them: from the environment, the shared files, the container or the
instance (IMDSv2). AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_<SERVICE> lead to other endpoints. boto3 is imported
with the first call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from pgproxy.aws.instance import Instance

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
ATTEMPTS = 2
"""So a call ends within about fifteen seconds, with the pause between the two."""
_MOST_OF_ANSWER = 256 * 1024
"""Bytes of an answer that is fetched by URL."""

_PASSING = frozenset(
    {
        "InternalServiceError",
        "InternalFailure",
        "InternalError",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ExpiredToken",
        "ExpiredTokenException",
    }
)
"""Codes of errors that may be over soon; others are somebody's to mend."""
_NOTHING_THERE = frozenset(
    {
        "ResourceNotFoundException",
        "InvalidRequestException",
        "InvalidParameterException",
        "ValidationException",
        "BinarySecret",
        "Unreadable",
    }
)
"""Codes that are an answer: what was asked for is not there, or is no use."""


class AwsError(Exception):
    """AWS has not done what it was asked for; the text says why, and holds no secret."""

    def __init__(self, code: str, text: str, passing: bool) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.passing = passing
        """Whether it may be over soon."""

    @property
    def says_nothing(self) -> bool:
        """Whether what was asked for may be there all the same: AWS is away, or doesn't let us."""
        return self.passing or self.code not in _NOTHING_THERE

    @property
    def is_missing(self) -> bool:
        """Whether what was asked for is not there."""
        return self.code == "ResourceNotFoundException"


@frozen
class Description:
    """A secret, without what is secret."""

    arn: str
    versions: Mapping[str, frozenset[str]]
    """By version, its stages."""


@frozen
class Entry:
    """A secret in a list."""

    arn: str
    name: str
    tags: Mapping[str, str]


@frozen
class Value:
    """What a version of a secret holds."""

    text: str = field(repr=False)
    created: float
    """Seconds since 1970."""


@frozen
class Answer:
    """An HTTP response."""

    status: int
    body: bytes = field(repr=False)


class Client:
    """AWS, in one region: the one given, or else the one that boto3 or the instance tells."""

    def __init__(self) -> None:
        self._given_region = ""
        self._lock = threading.Lock()
        """For the session, which is not for several threads at a time: who makes a client may take long."""
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        """By service and region."""
        self._sts_urls: dict[str, str] = {}
        """By region."""
        self._http_lock = threading.Lock()
        self._http: dict[str, Any] = {}
        self._instance: Instance | None = None

    def configure(self, region: str) -> None:
        """Be in a region; "" leaves it to boto3 or the instance. Waits for no thread."""
        self._given_region = region

    # Where we are.

    def instance(self) -> Instance:
        """Give what is known of the machine: all of it empty where this is no EC2 instance."""
        if self._instance is None:
            found = Instance.look_up()
            if not found.id:
                return found
            self._instance = found
        return self._instance

    def region(self) -> str:
        """Give the region. Raises `AwsError` where nobody says it."""
        self._begin()
        # As other SDKs do; boto3 itself reads only AWS_DEFAULT_REGION.
        told = os.environ.get("AWS_REGION") or self._session.region_name
        region = self._given_region or told or self.instance().region
        if not region:
            raise AwsError(
                "NoRegion",
                "no region is configured, and this is no EC2 instance; set aws.region, or AWS_REGION",
                passing=True,
            )
        return str(region)

    # Secrets Manager.

    def describe_secret(self, name: str) -> Description:
        """Give a secret's versions; `name` may be an ARN. Raises `AwsError`."""
        with _errors():
            answer = self._client("secretsmanager").describe_secret(SecretId=name)
            description = Description(answer["ARN"], _stages(answer.get("VersionIdsToStages")))
        if answer.get("DeletedDate") is not None:
            raise AwsError("ResourceNotFoundException", "the secret is marked for deletion", passing=False)
        return description

    def list_secrets(self, filters: Sequence[Mapping[str, Any]]) -> list[Entry]:
        """Give the secrets that match filters; what is new may be missing for minutes. Raises `AwsError`."""
        found = []
        with _errors():
            pages = (
                self._client("secretsmanager").get_paginator("list_secrets").paginate(Filters=list(filters))
            )
            for page in pages:
                for entry in page["SecretList"]:
                    tags = {tag["Key"]: tag["Value"] for tag in entry.get("Tags", ())}
                    found.append(Entry(entry["ARN"], entry["Name"], tags))
        return found

    def secret_value(self, arn: str, version: str) -> Value:
        """Give what a version holds. Raises `AwsError`."""
        with _errors():
            answer = self._client("secretsmanager").get_secret_value(SecretId=arn, VersionId=version)
            created = answer["CreatedDate"].timestamp()
            text = answer["SecretString"] if "SecretBinary" not in answer else None
        if text is None:
            raise AwsError("BinarySecret", "the secret is binary; one in JSON is needed", passing=False)
        return Value(text, created)

    # Tokens.

    def database_token(self, host: str, port: int, user: str, region: str) -> str:
        """
        Sign a token for a login at an RDS host, in a region ("" for ours). Raises `AwsError`.

        No request is made for it, unless credentials have to be fetched.
        """
        with _errors():
            client = self._client("rds")
            token = client.generate_db_auth_token(host, port, user, Region=region or None)
        return str(token)

    def sts(self) -> tuple[str, str]:
        """Give our region, and the URL of its STS. Needs no credentials. Raises `AwsError`."""
        region = self.region()
        if region not in self._sts_urls:
            with self._lock, _errors():
                self._sts_urls[region] = str(self._make("sts", region).meta.endpoint_url)
        return region, self._sts_urls[region]

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Fetch a URL, without following where it leads on. Raises `AwsError`."""
        from botocore.awsrequest import AWSRequest

        http = self._http_to(url)
        request = AWSRequest("GET", url, headers=dict(headers), stream_output=True).prepare()
        try:
            with _errors():
                response = http.send(request)
                body = response.raw.read(_MOST_OF_ANSWER + 1)
        except AwsError as error:
            # The words of botocore have the URL in them, and that may be a token.
            raise AwsError(error.code, f"no answer from {urlsplit(url).hostname}", error.passing) from None
        if len(body) > _MOST_OF_ANSWER:
            response.raw.close()
            raise AwsError("TooLong", f"{urlsplit(url).hostname} answers at too great length", passing=False)
        return Answer(response.status_code, body)

    def _http_to(self, url: str) -> Any:
        """Give connections to a host, through the proxy that HTTPS_PROXY and NO_PROXY say, if any."""
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        host = urlsplit(url).netloc
        with self._http_lock:
            if host not in self._http:
                self._http[host] = URLLib3Session(
                    verify=os.environ.get("AWS_CA_BUNDLE") or True,
                    proxies=get_environ_proxies(url),
                    timeout=(CONNECT_SECONDS, READ_SECONDS),
                )
            return self._http[host]

    # Ourselves.

    def whoami(self) -> tuple[str, str]:
        """Give the ARN of the credentials that are in use, and the region. Raises `AwsError`."""
        with _errors():
            arn = str(self._client("sts").get_caller_identity()["Arn"])
        return arn, self.region()

    def warm(self, services: Sequence[str]) -> None:
        """Load what boto3 needs for these services: it takes a second or two, once. Raises `AwsError`."""
        for service in services:
            with _errors():
                self._client(service)

    # CloudWatch.

    def put_metrics(self, namespace: str, data: Sequence[Mapping[str, Any]]) -> None:
        """Hand over one batch of metrics. Raises `AwsError`."""
        with _errors():
            self._client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=list(data))

    # boto3.

    def _begin(self) -> None:
        if self._session is None:
            with self._lock:
                if self._session is None:
                    import boto3

                    self._session = boto3.session.Session()

    def _client(self, service: str) -> Any:
        what = service, self.region()
        if what not in self._clients:
            with self._lock:
                # A client goes on with what its session had when it was made. An instance's role may come
                # later than we do, and its metadata service may be late, so there is none without.
                if self._session.get_credentials() is None:
                    raise AwsError(
                        "NoCredentials",
                        "boto3 finds none; give the instance a role, or set them as for the AWS CLI",
                        passing=True,
                    )
                if what not in self._clients:
                    self._clients[what] = self._make(*what)
        return self._clients[what]

    def _make(self, service: str, region: str) -> Any:
        from botocore.config import Config

        return self._session.client(
            service,
            region_name=region,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                max_pool_connections=16,
                user_agent_extra="pgproxy",
            ),
        )


def _stages(versions: Mapping[str, Sequence[str]] | None) -> dict[str, frozenset[str]]:
    return {version: frozenset(stages) for version, stages in (versions or {}).items()}


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what botocore and urllib3 raise, and what answers without sense lead to, into `AwsError`."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        told = error.response.get("Error", {})
        code = str(told.get("Code", "Unknown"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        passing = code in _PASSING or status >= 500
        raise AwsError(code, str(told.get("Message", ""))[:300], passing) from None
    except (BotoCoreError, HTTPError, ResponseParserError) as error:
        # A parser's words hold what it could not read.
        told = "the answer makes no sense" if isinstance(error, ResponseParserError) else str(error)[:300]
        raise AwsError(type(error).__name__, told, passing=True) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # Of answers, and of what is in the environment; their words may hold anything.
        told = "the answer makes no sense, or the endpoint (AWS_ENDPOINT_URL) is none"
        raise AwsError(type(error).__name__, told, passing=True) from None
