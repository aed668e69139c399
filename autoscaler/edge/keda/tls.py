"""TLS of the scaler: files that are read again when they change, so that a rotation needs no restart.

gRPC asks at every handshake. A pair that does not fit (one file is written, the other not yet) or cannot
be read changes nothing: what was in use stays, and is tried again at the next handshake.

gRPC is told of a change only, and is given time before it: what it had, it frees with the change, also
while another thread makes a handshake from it (a use after free, https://github.com/grpc/grpc/issues/36693).
Told the same at every handshake it would do so at every handshake: a dozen clients ended it within seconds.
"""

import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import grpc

log = logging.getLogger("foreserve")
SETTLE_SECONDS = 0.1  # a handshake is made of the configuration within microseconds
Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate chain and key; with `client_ca` clients must show a certificate of that authority."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files there are."""
        return (self.certificate, self.key, *((self.client_ca,) if self.client_ca else ()))


class ReloadedTls:
    """Gives gRPC its credentials, and new ones after the files have changed."""

    def __init__(self, files: TlsFiles, told: Callable[[bool], None] = lambda _: None) -> None:
        """Read the files; OSError if they cannot be used. `told`: whether a reload succeeded."""
        self._files = files
        self._told = told
        self._lock = Lock()
        self._stamp = _stamp(files)
        self._refused: Stamp | None = None
        self._initial = _configuration(files)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files, for one port: of a change one port is told."""
        return grpc.dynamic_ssl_server_credentials(
            self._initial,
            self.changed,  # type: ignore[arg-type]  # gRPC takes None as no change, the stubs do not know
            require_client_authentication=bool(self._files.client_ca),
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what new handshakes must use if the files changed since the last call, else None.

        Called by gRPC at every handshake, from threads of its own, which wait for one another.
        """
        with self._lock:
            try:
                stamp = _stamp(self._files)
                if stamp == self._stamp:
                    return None
                new = _configuration(self._files)
            except OSError as error:
                if self._refused is None:
                    log.warning("TLS: %s; the certificate in use stays", error)
                    self._told(False)
                self._refused = self._stamp
                return None
            self._stamp, self._refused = stamp, None
            self._told(True)
            log.info("TLS: %s read again", self._files.certificate)
            time.sleep(SETTLE_SECONDS)  # handshakes that were asked for before are made by then
            return new


def _stamp(files: TlsFiles) -> Stamp:
    stats = (path.stat() for path in files.paths)  # through links: a Secret's files are links
    return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in stats)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Return the files' content once it is known to fit together; OSError (ssl.SSLError is one)."""
    try:
        check = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        check.load_cert_chain(files.certificate, files.key)
        if files.client_ca is not None:
            check.load_verify_locations(files.client_ca)
    except ssl.SSLError as error:
        names = " and ".join(str(path) for path in files.paths)
        raise OSError(f"{names} cannot be used together: {error}") from error
    roots = None if files.client_ca is None else files.client_ca.read_bytes()
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)
