#!/bin/bash
# Installs pgproxy on this machine, or another version of it beside the one that runs; docs/operations.md.
#
#   install.sh [--root DIR] [--extras aws,...] SOURCE
#
# SOURCE is what pip takes: a directory with this repository, a wheel, a package's name. Each version has a virtual
# environment of its own in /opt/pgproxy.d; /opt/pgproxy leads to the last. The configuration in /etc/pgproxy is made
# where there is none, and never changed. With --root all goes below DIR, and neither users nor services are touched.

set -euo pipefail

root="" extras=""
while [[ ${1-} == --* ]]; do
	case $1 in
		--root) root=$(realpath -m -- "${2:?--root takes a directory}") ;;
		--extras) extras=${2:?--extras takes a list} ;;
		*)
			echo "install.sh: $1 is no option; there are --root and --extras" >&2
			exit 2
			;;
	esac
	shift 2
done
source=${1:?install.sh: name what to install, a directory with the repository for example}
here=$(dirname -- "$(realpath -- "$0")")
versions=$root/opt/pgproxy.d etc=$root/etc/pgproxy units=$root/etc/systemd/system

# A copy of its own for each version: what runs may load a module of it at any time.
version=$versions/$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$versions" "$etc" "$units"
python3 -m venv "$version"
"$version/bin/pip" install --quiet --disable-pip-version-check "$source${extras:+[$extras]}"

# Twisted's list of plugins, which nobody may write later on.
"$version/bin/python" -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'

if [[ ! -e $etc/pgproxy.toml ]]; then
	install -m 0640 "$here/pgproxy-minimal.toml" "$etc/pgproxy.toml"
	[[ -e $etc/users.txt ]] || install -m 0640 "$here/users.txt.example" "$etc/users.txt"
fi
install -m 0644 "$here/pgproxy.service" "$here/pgproxy.socket" "$units"

# At once: the service finds either the one or the other.
ln -sfn "$version" "$root/opt/.pgproxy.new"
mv -T "$root/opt/.pgproxy.new" "$root/opt/pgproxy"

if [[ -z $root ]]; then
	id pgproxy >/dev/null 2>&1 || useradd --system --home-dir /etc/pgproxy --no-create-home --shell /usr/sbin/nologin pgproxy
	chown -R root:pgproxy "$etc"
	chmod 0750 "$etc"
	systemctl daemon-reload
fi
"$version/bin/pgproxy" --version
