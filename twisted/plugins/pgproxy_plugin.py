"""Makes `twistd pgproxy` known. Every twistd run pays for this file: no product, no reactor in it."""

from twisted.application.service import ServiceMaker

pgproxy = ServiceMaker("pgproxy", "pgproxy.tap", "A pooling proxy in front of PostgreSQL", "pgproxy")
