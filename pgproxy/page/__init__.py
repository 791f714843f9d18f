"""The status page: what the proxy is doing now, in a browser. Imported where it is served only."""
