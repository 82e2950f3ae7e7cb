"""The parts of the HTTP transport; `gateway/transports/http.py` puts them together and is where to start reading.

config · listener (sockets, TLS, clock tick, drain) -> connection (bytes <-> requests, every limit of time and size)
-> routes · client_address · identity (cookies, anonymous) · headers · bodies · cors · redirects -> answers (bytes of a response).
"""
