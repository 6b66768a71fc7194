"""`Address`: a DSN, read so that libpq's usual parameters work and no secret is shown.

asyncpg sends each parameter that it does not know to the server, as a setting, and the server then
refuses the connection. So the parameters that concern only the client are handled here.
"""

from __future__ import annotations

import inspect
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from returns_pipeline.errors import InvalidArgument

__all__ = ["Address", "AddressSource", "Text", "read_address"]

# A text, or a function that is called for it each time: for tokens that expire.
Text: TypeAlias = str | Callable[[], str | Awaitable[str]]

# Parameters of libpq, and the socket options that they set. Not all systems have all of these.
_KEEPALIVES: Final = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}
# Parameters with their values that need nothing: asyncpg behaves like this anyway. Any other value
# requires something that asyncpg cannot do, and is refused.
_MET: Final = {
    "channel_binding": {"disable", "prefer"},
    "client_encoding": {"auto", "utf8", "utf-8", "unicode"},
    "gssencmode": {"disable", "prefer"},
    "load_balance_hosts": {"disable"},
    "sslcompression": {"0", "1"},
    "sslsni": {"1"},
}
# Parameters whose values may contain "@".
_ANY_TEXT: Final = {
    *("user", "password", "passfile", "sslpassword", "sslcert", "sslkey", "sslrootcert", "sslcrl"),
    *("application_name", "fallback_application_name", "options", "host", "service"),
}
_WRITABLE: Final = {"any", "primary", "read-write"}
_ENCODE: Final = (
    "dsn cannot be read: each '#', '/', '?', '@', ':' and '%' in the user's name or the password "
    "must be percent-encoded, as urllib.parse.quote(password, safe='') does"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and how to connect to it.

    Attributes:
        dsn: The DSN for asyncpg.
        name: The address alone, without the password and the parameters, which may hold one, too.
        connect_timeout: Seconds for an attempt to connect; None for the journal's patience.
        target: Which of several servers to use, as in libpq; None if the DSN does not say.
        keepalive: Whether the client checks that the server's machine is still there.
        socket_options: Further socket options and their values.
        secrets: Texts that must not be shown.
    """

    dsn: str = field(repr=False)
    name: str
    connect_timeout: float | None = None
    target: str | None = None
    keepalive: bool = True
    socket_options: tuple[tuple[int, int], ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def dsn_for(self, target: str) -> str:
        """Return the DSN of a server that matches ``target``, or what the address says instead."""
        separator = "&" if "?" in self.dsn else "?"
        return f"{self.dsn}{separator}target_session_attrs={self.target or target}"

    def scrub(self, text: str) -> str:
        """Return a text without the secrets of this address."""
        for secret in self.secrets:
            text = text.replace(secret, "...")
        return text


def read_address(dsn: str) -> Address:
    """Read a DSN.

    Raises:
        InvalidArgument: The DSN cannot be read, or requires something that cannot be done. Of the
            DSN, the message shows only names and values of parameters that are not secret.
    """
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise InvalidArgument("dsn must begin with postgresql://")
    try:
        parts = urlsplit(dsn)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise InvalidArgument(_ENCODE) from None
    user, _, hosts = parts.netloc.rpartition("@")
    # In a password, a character that is not percent-encoded may end a part of the address early.
    ports = [host.rpartition(":")[2] for host in hosts.split(",") if ":" in host.rpartition("]")[2]]
    if (
        parts.fragment
        or "@" in user
        or "@" in parts.path
        or (not user and not all(port.isdigit() or not port for port in ports))
        or (not user and any("@" in value for name, value in pairs if name not in _ANY_TEXT))
        or not all(re.fullmatch(r"[A-Za-z_][\w.]*", name) for name, _ in pairs)
    ):
        raise InvalidArgument(_ENCODE)
    name, _, password = user.partition(":")
    given = dict(pairs)
    passwords = (password, given.get("password", ""), given.get("sslpassword", ""))
    return Address(
        dsn=urlunsplit(parts._replace(query=urlencode(_for_asyncpg(given), quote_via=quote))),
        name=f"{parts.scheme}://{name}{'@' if user else ''}{hosts}{parts.path}",
        connect_timeout=_whole("connect_timeout", given) or None,
        target=_target(given),
        keepalive=given.get("keepalives", "1") != "0",
        socket_options=_socket_options(given),
        secrets=tuple({text for it in passwords for text in (it, unquote(it)) if text}),
    )


def _for_asyncpg(given: dict[str, str]) -> dict[str, str]:
    """Return the parameters that are passed on to asyncpg and the server."""
    for name, values in _MET.items():
        if name in given and given[name].lower() not in values:
            raise InvalidArgument(f"dsn: asyncpg cannot do {name}={given[name]}")
    taken = {*_MET, *_KEEPALIVES, "connect_timeout", "keepalives", "target_session_attrs"}
    left = {name: value for name, value in given.items() if name not in taken}
    fallback = left.pop("fallback_application_name", None)
    if fallback is not None:
        _ = left.setdefault("application_name", fallback)
    return left


def _target(given: dict[str, str]) -> str | None:
    target = given.get("target_session_attrs")
    if target is not None and target not in _WRITABLE:
        # The value is not shown: a wrong one may be a part of a password.
        raise InvalidArgument(
            "dsn: target_session_attrs must be 'read-write', 'primary' or 'any': a journal writes"
        )
    return target


def _socket_options(given: dict[str, str]) -> tuple[tuple[int, int], ...]:
    options: list[tuple[int, int]] = []
    for name, option in _KEEPALIVES.items():
        value = _whole(name, given)
        if value and hasattr(socket, option):  # 0 is the system's default
            options.append((getattr(socket, option), value))
    return tuple(options)


def _whole(name: str, given: dict[str, str]) -> int:
    text = given.get(name, "0").strip()
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InvalidArgument(f"dsn: {name} must be a whole number")
    return max(0, int(text))


class AddressSource:
    """Returns the address and the password for each connection.

    Args:
        dsn: The DSN, or a function that returns it.
        password: The password, in place of the one in the DSN; or a function that returns it.

    Attributes:
        name: The address as people may see it; a fixed text if a function returns it.

    Raises:
        InvalidArgument: At the call, if ``dsn`` is a text that cannot be read.
    """

    def __init__(self, dsn: Text, password: Text | None) -> None:
        self._dsn = read_address(dsn) if isinstance(dsn, str) else dsn
        self._password = password
        by_function = "postgresql (by a function)"
        self.name = self._dsn.name if isinstance(self._dsn, Address) else by_function

    async def resolve(self) -> tuple[Address, str | None]:
        """Return the address, and the password unless the address has it.

        Raises:
            InvalidArgument: The DSN that a function returned cannot be read.
            Exception: An exception of a function.
        """
        address = (
            self._dsn if isinstance(self._dsn, Address) else read_address(await _of(self._dsn))
        )
        password = None if self._password is None else await _of(self._password)
        return address, password


async def _of(text: Text) -> str:
    if isinstance(text, str):
        return text
    given = text()
    return await given if inspect.isawaitable(given) else given
