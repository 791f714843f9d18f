"""The Twisted side: transports, the client's and the server's protocol, and the way between."""
