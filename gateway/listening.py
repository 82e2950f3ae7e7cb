"""What all listeners of the gateway need: a TLS context from files, and in words why a port cannot be had."""

from __future__ import annotations

import errno
import ssl

from protocol.seams import ConfigurationError


def server_tls(transport: str, certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext | None:
    """TLS 1.2 or newer from PEM files; None without a certificate. client_ca: whose client certificates are believed.

    Who shows no certificate is let in all the same, and may still have a password. Raises ConfigurationError.
    """
    if not certificate:
        if client_ca:
            raise ConfigurationError(f"{transport}: tls_client_ca without tls_certificate: client certificates need TLS")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    files = f"tls_certificate {certificate!r}, tls_key {key!r}" + (f", tls_client_ca {client_ca!r}" if client_ca else "")
    try:
        context.load_cert_chain(certificate, key or None)
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{transport}: {files}: {error}; all must be PEM files") from error
    return context


def why_not(transport: str, host: str, port: int, error: Exception, in_use: str) -> str:
    """A bind that failed, with the next step. in_use: what to do when somebody else has the port."""
    where = f"{host}:{port}"
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return f"{transport}: {where} is in use{in_use}"
    if number == errno.EACCES:
        return f"{transport}: not allowed to listen on {where}; choose a port above 1023 or grant CAP_NET_BIND_SERVICE"
    if number == errno.EADDRNOTAVAIL:
        return f"{transport}: this machine has no address {host}; use one of its own, or 0.0.0.0 for all"
    return f"{transport}: cannot listen on {where}: {error}; check host and port"
