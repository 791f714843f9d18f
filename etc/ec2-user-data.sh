#!/bin/bash
# User data for an EC2 instance (Debian 12, Ubuntu 24.04 or newer): installs pgproxy and starts it.
# Fill in the two places that are marked; docs/operations.md and docs/aws.md tell more.

set -euo pipefail

# 1. Where pgproxy comes from.
repository=https://git.example.com/pgproxy.git

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# gcc and python3-dev are for the compiled twin: without it pgproxy works, but takes more of the processor.
apt-get install -y -q ca-certificates curl gcc git python3-dev python3-venv
git clone --quiet --depth 1 "$repository" /opt/pgproxy-source
install -d -m 0750 /etc/pgproxy
curl -sSf -o /etc/pgproxy/rds.pem https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem

# 2. The configuration. No secrets here: user data can be read on the instance.
cat >/etc/pgproxy/pgproxy.toml <<'TOML'
[proxy]
listen = "127.0.0.1:6432"

[targets.main]
server = "mydb.abcdefgh.eu-central-1.rds.amazonaws.com:5432"
tls = "verify-full"
ca = "rds.pem"

[aws]
secrets = ["prefix:prod/pgproxy/"]
TOML

/opt/pgproxy-source/etc/install.sh --extras aws /opt/pgproxy-source
systemctl enable --now pgproxy.service
