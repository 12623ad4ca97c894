"""Connection settings of the environment, for models and API jobs alike: proxies, certificates."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from urllib.request import getproxies, proxy_bypass

from dipeo_nb.errors import ConfigurationError

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


def proxy_for(scheme: str, host: str) -> str | None:
    """The URL of the proxy that the environment names for a server; None: it is called directly, as this machine always is."""
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    if not found or host.strip("[]") in _THIS_MACHINE or proxy_bypass(host):
        return None
    return found if "://" in found else f"http://{found}"


@contextmanager
def usable_environment() -> Generator[None]:
    """The connection settings of the environment.

    Raises:
        ConfigurationError: a proxy or certificates that the environment names cannot be used.
    """
    try:
        yield
    except (ValueError, ImportError) as error:
        proxies = {name: url for name, url in getproxies().items() if name != "no"}
        shown = ", ".join(f"{name}_proxy={_without_user(url)}" for name, url in sorted(proxies.items())) or "none"
        install = " Run: pip install socksio" if isinstance(error, ImportError) else ""
        raise ConfigurationError(
            f"The proxy of the environment cannot be used ({shown}).",
            hint=f"Proxies are http://host:port, https://… or socks5://…; for none, unset the variable.{install}",
        ) from None
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"The certificates of the environment cannot be read: {error}.",
            hint="Correct SSL_CERT_FILE and SSL_CERT_DIR, or unset them.",
        ) from error


def _without_user(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]
