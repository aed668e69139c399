"""TLS and mTLS as KEDA's triggers use them; certificates are replaced while calls go on."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from scaler_rig import Authority, Served, policy, until

from autoscaler.edge.keda.tls import ReloadedTls, TlsFiles

RELOADS = 'foreserve_scaler_certificate_reloads_total{result="%s"}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class Secure:
    """A scaler with mTLS whose files the test replaces as a Secret's are."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.authority = authority
        self.files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
        shutil.copy(authority.certificate, folder / "ca.crt")
        self.install(authority, "first")
        self.served = Served(self.files)
        self.served.plans.replace([policy()])

    def install(self, authority: Authority, name: str) -> None:
        certificate, key = authority.issue(name)
        for source, target in ((key, self.files.key), (certificate, self.files.certificate)):
            fresh = target.with_suffix(".new")
            shutil.copy(source, fresh)
            fresh.replace(target)

    def credentials(self, *, trust: Authority | None = None) -> grpc.ChannelCredentials:
        certificate, key = self.authority.issue("keda")
        roots = (trust or self.authority).certificate.read_bytes()
        return grpc.ssl_channel_credentials(roots, key.read_bytes(), certificate.read_bytes())


@pytest.fixture
def secure(tmp_path: Path, authority: Authority) -> Iterator[Secure]:
    rig = Secure(tmp_path, authority)
    yield rig
    rig.served.close()


def test_a_client_of_the_authority_is_answered(secure: Secure) -> None:
    keda = secure.served.keda(secure.credentials())
    assert keda.spec().metricSpecs
    assert keda.count() == 7.0
    assert keda.is_active() is True
    assert next(keda.stream()).result is True


@pytest.mark.parametrize("who", ["nobody", "a stranger", "plain text"])
def test_others_are_not(secure: Secure, tmp_path: Path, who: str) -> None:
    if who == "plain text":
        credentials = None
    elif who == "nobody":
        credentials = grpc.ssl_channel_credentials(secure.authority.certificate.read_bytes())
    else:
        certificate, key = Authority(tmp_path, "other").issue("stranger")
        credentials = grpc.ssl_channel_credentials(
            secure.authority.certificate.read_bytes(), key.read_bytes(), certificate.read_bytes()
        )
    with pytest.raises(grpc.RpcError) as error:
        secure.served.keda(credentials).metrics()
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tls_without_client_certificates(authority: Authority) -> None:
    served = Served(TlsFiles(*authority.issue("plain")))
    served.plans.replace([policy()])
    trust = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    assert served.keda(trust).count() == 7.0
    served.close()


def test_a_certificate_is_rotated_under_load_without_a_failed_call(
    secure: Secure, tmp_path: Path
) -> None:
    credentials = secure.credentials()
    failures: list[object] = []
    stop = threading.Event()
    calls = [0]

    def ask_on() -> None:
        keda = secure.served.keda(credentials)
        while not stop.is_set():
            try:
                assert keda.count() == 7.0
                secure.served.keda(credentials).spec()  # a new handshake each time
                calls[0] += 1
            except grpc.RpcError as error:
                failures.append((error.code(), error.details()))

    threads = [threading.Thread(target=ask_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(3):
        reached = calls[0] + 10
        until(lambda reached=reached: calls[0] >= reached)
        secure.install(secure.authority, f"rotated-{number}")
    until(lambda: (secure.served.exported(RELOADS % "ok") or 0.0) >= 1.0)
    # and to another authority, which only those who trust it can tell
    other = Authority(tmp_path, "new-ca")
    stop.set()
    for thread in threads:
        thread.join(10.0)
    assert failures == []
    secure.install(other, "from-new-ca")
    assert secure.served.keda(secure.credentials(trust=other)).count() == 7.0
    with pytest.raises(grpc.RpcError):
        secure.served.keda(secure.credentials()).metrics()


def test_open_streams_outlive_a_rotation(secure: Secure) -> None:
    """KEDA's connection stays as long as nothing ends it: a new certificate is for new ones."""
    secure.served.plans.replace([policy(desired=0, current=0)])
    credentials = secure.credentials()
    before = secure.served.keda(credentials).stream()
    assert next(before).result is False
    secure.install(secure.authority, "renewed")
    after = secure.served.keda(credentials).stream()
    assert next(after).result is False
    assert secure.served.exported(RELOADS % "ok") == 1.0
    secure.served.plans.apply("MODIFIED", policy(desired=2, current=0))
    assert next(before).result is next(after).result is True


def test_a_pair_that_does_not_fit_changes_nothing(secure: Secure) -> None:
    credentials = secure.credentials()
    whole = secure.files.certificate.read_bytes()
    for broken in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", None):
        if broken is None:
            secure.files.certificate.unlink()
        else:
            secure.files.certificate.write_bytes(broken)
        assert secure.served.keda(credentials).count() == 7.0
    assert secure.served.exported(RELOADS % "failed") == 1.0  # one line, one count an outage
    secure.files.certificate.write_bytes(whole)
    assert secure.served.keda(credentials).count() == 7.0
    assert secure.served.exported(RELOADS % "ok") == 1.0


def test_grpc_is_told_of_a_change_once(tmp_path: Path, authority: Authority) -> None:
    """Told again of the same, it frees what other threads are making handshakes from (grpc#36693)."""
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    told: list[bool] = []

    def install(name: str) -> None:
        certificate, key = authority.issue(name)
        shutil.copy(key, files.key)
        shutil.copy(certificate, files.certificate)

    install("first")
    tls = ReloadedTls(files, told.append)
    assert tls.changed() is None
    install("second")
    assert isinstance(tls.changed(), grpc.ServerCertificateConfiguration)
    assert tls.changed() is None
    files.key.write_bytes(b"")
    assert tls.changed() is None
    assert told == [True, False]


def test_files_that_cannot_be_used_are_an_error_at_the_start(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, _ = authority.issue("one")
    _, key = authority.issue("two")
    with pytest.raises(OSError, match=r"one\.crt and .*two\.key cannot be used together"):
        ReloadedTls(TlsFiles(certificate, key))
    with pytest.raises(FileNotFoundError):
        ReloadedTls(TlsFiles(tmp_path / "none.crt", key))
