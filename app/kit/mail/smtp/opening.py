"""How a connection to a mail server comes about: reach it, greet it, encrypt, sign in.

Nothing here is ever made weaker to get through: no certificate unchecked, no password in the clear.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace

from app.kit.mail.reaching import reach, shun
from app.kit.mail.replies import NotSentError, Reply
from app.kit.mail.smtp.credentials import Credentials
from app.kit.mail.smtp.exchange import Exchange


def open_connection(exchange: Exchange) -> None:
    """Connect, encrypt and sign in, as the server's address asks.

    Raises: NotSentError.
    """
    server = exchange.server
    try:
        _connect(exchange)
        if server.security == "tls":
            _encrypt(exchange)
        exchange.require(2, _with_advice(exchange, exchange.hear("connect", exchange.client.getreply)))
        _greet(exchange)
        if server.security == "starttls":
            _start_tls(exchange)
            _greet(exchange)
        if server.credentials is not None:
            _sign_in(exchange, server.credentials)
    except BaseException as error:
        exchange.close()
        if isinstance(error, NotSentError) and error.reply.code is None:  # silence, or what is no SMTP
            shun(server.host, server.port)
        raise


def _connect(exchange: Exchange) -> None:
    server, limit_s = exchange.server, exchange.limits.connect_s
    try:
        # Not smtplib's connect(): it would give the server's greeting no longer than the connection.
        sock = reach(server.host, server.port, limit_s)
    except (OSError, UnicodeError) as error:
        raise NotSentError(exchange.silence("connect", error, limit_s)) from error
    # Else the dot, sent alone, waits until the server's system confirms the bytes before it.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    exchange.client.use(sock)


def _with_advice(exchange: Exchange, reply: Reply) -> Reply:
    """Say what a silent port may wait for."""
    if reply.code is not None or exchange.server.security != "starttls" or exchange.client.secure:
        return reply
    return replace(
        reply,
        words=f"{reply.words}; it was reached, but greets nobody: a port that speaks TLS from the first byte (465) "
        "wants smtps://",
    )


def _greet(exchange: Exchange) -> None:
    reply = exchange.hear("ehlo", exchange.client.ehlo)
    if reply.code is not None and reply.code >= 500:
        reply = exchange.hear("ehlo", exchange.client.helo)
    exchange.require(2, reply)


def _start_tls(exchange: Exchange) -> None:
    if not exchange.client.has_extn("starttls"):
        raise exchange.give_up(
            "tls",
            "the server offers no encryption (STARTTLS), or somebody in between hides it; nothing was sent in the "
            "clear. Use smtps:// if it encrypts from the first byte, smtp+plain:// if it is a relay next to you",
        )
    exchange.require(2, exchange.say("tls", "STARTTLS"))
    # What was said in the clear must not count as said under TLS. Source: RFC 3207 6
    if exchange.early_answer("tls") is not None:
        raise exchange.give_up(
            "tls", "something was said between STARTTLS and TLS: somebody may be interfering"
        )
    _encrypt(exchange)


def _encrypt(exchange: Exchange) -> None:
    sock, server = exchange.client.sock, exchange.server
    assert sock is not None
    sock.settimeout(exchange.limits.command_s)
    context = server.context or ssl.create_default_context()
    try:
        exchange.client.use(context.wrap_socket(sock, server_hostname=server.host))
    except ssl.SSLCertVerificationError as error:
        # verify_message is OpenSSL's, such as "self-signed certificate".
        words = (
            f"the server's certificate cannot be trusted: {error.verify_message.rstrip('.')}. Expected one for "
            f"{server.host} from a known authority; for an authority of your own, SSL_CERT_FILE names its file"
        )
        raise exchange.give_up("tls", words) from error
    except ssl.SSLError as error:
        words = f"no encryption came about ({error.reason or error}): does the server speak TLS on this port?"
        if server.security == "tls":
            words += " One that does so only when asked (587, 25, 2525) wants smtp://"
        raise exchange.give_up("tls", words) from error
    except (OSError, ValueError) as error:
        raise NotSentError(exchange.silence("tls", error, exchange.limits.command_s)) from error


def _sign_in(exchange: Exchange, credentials: Credentials) -> None:
    offered = str(exchange.client.esmtp_features.get("auth", "")).upper().split()
    ways = {
        "PLAIN": [f"AUTH PLAIN {credentials.plain}", credentials.plain],
        "LOGIN": ["AUTH LOGIN", *credentials.login],
    }
    usable = [ways[name] for name in exchange.server.sign_in_by if name in offered]
    if not exchange.client.secure:
        raise exchange.give_up("auth", "a password is only said over an encrypted connection")
    if not usable:
        others = ", ".join(offered) or "nothing"
        raise exchange.give_up(
            "auth", f"the server takes no password: expected AUTH PLAIN or LOGIN, found {others}"
        )
    refusals: list[Reply] = []
    for lines in usable:
        reply = _converse(exchange, lines)
        if reply.code == 235:
            return
        refusals.append(reply)
        # Some offer a way that they cannot do, and call the password wrong. Who has closed hears no other.
        if (reply.code or 0) // 100 != 5 or not exchange.is_open:
            break
    raise NotSentError(refusals[0])


def _converse(exchange: Exchange, lines: list[str]) -> Reply:
    """Say line after line as long as the server asks for more; return its last word."""
    reply = exchange.say("auth", lines[0])
    for line in lines[1:]:
        if reply.code == 334:
            reply = exchange.say("auth", line)
    return reply
