"""Send a request to an object store or a web server, and retry it if the failure may be temporary.

A missing file and a file without permission raise the OSError that a local file would raise. Everything else that does
not depend on the file (no connection, no answer, an error of the server) is repeated, and then raises AccessError: the
files may be intact, so no clip may be left out because of it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from pipeline.common.errors import AccessError, PackageError
from pipeline.common.packages import load_package

# Ours: a restart of a server or of a load balancer takes less than the sum.
PAUSES_S = (0.5, 2.0, 8.0)
# Ours: seconds without a byte from a web server, after which the request is repeated. Object stores have limits of their own.
STALL_S = 20.0
# The statuses from 400 to 499 that do not depend on the file: another request may not get them, or the credentials are wrong.
_PASSING = (401, 408, 425, 429)
# The same for S3, whose package raises PermissionError for them.
_CREDENTIALS = {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}

Result = TypeVar("Result")


def request(url: str, send: Callable[[Any, str], Result]) -> Result:
    """Return ``send(filesystem, url)``, repeated after failures that may pass.

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        The server refuses this file. The error has its number and the URL.
    AccessError
        The server cannot be reached, or failed each time.
    PackageError
        The package for the URL's protocol is not installed.
    """
    for pause_s in (*PAUSES_S, None):
        try:
            return send(_filesystem(url.split("://")[0]), url)
        except (MemoryError, PackageError):
            raise
        except Exception as error:
            cause = _cause(error)
            number = _refusal(cause)
            if number is not None:
                raise OSError(number, os.strerror(number), url) from None
            if pause_s is None:
                reason = " ".join(str(cause).split()) or type(cause).__name__
                raise AccessError(
                    f"{url}: cannot be read ({reason}); check the network, the address and the credentials, and run again"
                ) from None
            time.sleep(pause_s)
    raise AssertionError("the last pause is None")


def _cause(error: Exception) -> BaseException:
    """Return the error, or the one that fsspec hides: for web servers, it calls every failed inquiry a missing file."""
    hidden = error.__cause__
    of_network = isinstance(hidden, TimeoutError) or type(hidden).__module__.startswith("aiohttp")
    return hidden if hidden is not None and isinstance(error, FileNotFoundError) and of_network else error


def _refusal(error: BaseException) -> int | None:
    """Return the error number if a repeated request would be refused as well."""
    status = getattr(error, "status", 0)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return errno.ENOENT
    response = getattr(error.__cause__, "response", None)
    if isinstance(response, dict) and response.get("Error", {}).get("Code") in _CREDENTIALS:
        return None
    if isinstance(error, PermissionError) or status == 403:
        return errno.EACCES
    if 400 <= status < 500 and status not in _PASSING:
        return errno.EINVAL
    return None


@cache
def _filesystem(protocol: str) -> Any:
    fsspec = load_package("fsspec", purpose="reading remote files", extra="remote")
    options: dict[str, Any] = {}
    if protocol in ("http", "https"):
        aiohttp = load_package("aiohttp", purpose="reading from a web server", extra="remote")
        limits = aiohttp.ClientTimeout(total=None, sock_connect=STALL_S, sock_read=STALL_S)
        # Proxies of the environment count, as they do for other programs.
        options = {"client_kwargs": {"timeout": limits, "trust_env": True}}
    try:
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise PackageError(f"{protocol}:// requires another package: {' '.join(str(error).split())}") from None
    except ValueError:
        raise PackageError(f"{protocol}:// is not a protocol of fsspec; check the media root") from None
