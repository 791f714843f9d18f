"""Makes `twistd pgproxy` known. Imports neither the product nor the reactor: every twistd run pays for this file."""

from twisted.application.service import ServiceMaker

pgproxy = ServiceMaker("pgproxy", "pgproxy.tap", "A pooling proxy in front of PostgreSQL", "pgproxy")
