"""docs/aws.md and etc/: the configuration is one, and the permissions are those that are used, no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pgproxy.aws import client, rds
from tests.fix_tls import Tls

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "aws.md").read_text()
USED = {
    "describe_secret": "secretsmanager:DescribeSecret",
    "get_secret_value": "secretsmanager:GetSecretValue",
    "list_secrets": "secretsmanager:ListSecrets",
    "put_metric_data": "cloudwatch:PutMetricData",
    "generate_db_auth_token": "rds-db:connect",
    "describe_db_clusters": "rds:DescribeDBClusters",
    "describe_db_instances": "rds:DescribeDBInstances",
    # Needs no permission.
    "get_caller_identity": "",
}
INDIRECT = {"kms:Decrypt"}
"""What Secrets Manager does for us."""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_configurations_are_right(tmp_path: Path, tls: Tls) -> None:
    whole, iam = blocks("toml")
    user_data = (ROOT / "etc" / "ec2-user-data.sh").read_text()
    (by_user_data,) = re.findall(r"<<'TOML'\n(.*?)^TOML$", user_data, re.MULTILINE | re.DOTALL)
    for name, content in {
        "server.crt": tls.server.certificate.read_text(),
        "server.key": tls.server.key.read_text(),
        "rds.pem": tls.ca.read_text(),
    }.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    for text in (whole, whole + iam, by_user_data):
        config = tmp_path / "pgproxy.toml"
        config.write_text(text)
        command = [str(Path(sys.executable).with_name("pgproxy")), "check", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_policy_allows_what_is_used() -> None:
    policy = json.loads((ROOT / "etc" / "iam-policy.json").read_text())
    allowed: set[str] = set()
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow" and f"| `{statement['Sid']}` |" in PAGE
        actions = statement["Action"]
        allowed |= set([actions] if isinstance(actions, str) else actions)
        if statement["Resource"] == "*":
            # AWS knows no narrower one for these.
            assert actions in ("secretsmanager:ListSecrets", "cloudwatch:PutMetricData")
    assert not any("*" in action for action in allowed)
    source = "".join(Path(str(module.__file__)).read_text() for module in (client, rds))
    called = set(re.findall(r'\.((?:describe|get|list|put|generate)_\w+)\(|"(describe_\w+)"', source))
    names = {one or other for one, other in called}
    names |= set(re.findall(r'get_paginator\("(\w+)"\)', source))
    ours = {"get_credentials", "get_paginator"}
    assert names - ours == set(USED)
    assert allowed - INDIRECT == set(filter(None, USED.values()))


@pytest.mark.parametrize(
    "sid", re.findall(r"^\| `(\w+)` \|", PAGE.partition("statement | for")[2].partition("\n\n")[0], re.M)
)
def test_every_statement_that_the_page_names_is_there(sid: str) -> None:
    assert f'"Sid": "{sid}"' in (ROOT / "etc" / "iam-policy.json").read_text()
