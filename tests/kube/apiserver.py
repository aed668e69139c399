"""A Kubernetes API server for tests: what every kind of it offers, and the real one.

`ApiServer` is the surface that tests use; `RealApiServer` runs etcd and kube-apiserver as envtest
does: no controllers, so no Deployment makes pods, no namespace is ever emptied by itself, and no
ServiceAccount comes with a namespace. `apidouble.ApiDouble` is the stand-in without binaries.
"""

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import kubernetes.client
import urllib3
import yaml

Object = dict[str, Any]
READY_SECONDS = 60.0
SERVER_SUBJECTS = "IP:127.0.0.1,DNS:localhost"


def binaries() -> Path | None:
    """Return the folder with envtest's kube-apiserver and etcd, None where there is none."""
    for folder in (os.environ.get("KUBEBUILDER_ASSETS"), "/usr/local/kubebuilder/bin"):
        if folder and all((Path(folder) / name).exists() for name in ("kube-apiserver", "etcd")):
            return Path(folder)
    return None


class ApiServer:
    """One API server: address, credentials, and how to hurt it."""

    kind: str  # "real" or "double"
    url: str
    token: str  # of a member of system:masters
    ca_file: Path | None = None

    def __init__(self) -> None:
        self._clients: list[kubernetes.client.ApiClient] = []
        self._pool: urllib3.PoolManager | None = None

    # -- clients -------------------------------------------------------------

    def client(self, token: str) -> kubernetes.client.ApiClient:
        """Return a client with that bearer token; closed with the server."""
        configuration = kubernetes.client.Configuration(host=self.url)
        configuration.api_key = {"authorization": f"Bearer {token}"}
        configuration.ssl_ca_cert = str(self.ca_file) if self.ca_file else None
        configuration.retries = False  # a test wants to see each refusal
        client = kubernetes.client.ApiClient(configuration)
        self._clients.append(client)
        return client

    def admin(self) -> kubernetes.client.ApiClient:
        return self.client(self.token)

    def as_service_account(self, namespace: str, name: str) -> kubernetes.client.ApiClient:
        """Return a client of that ServiceAccount, which is created where it is missing."""
        return self.client(self.service_account_token(namespace, name))

    def service_account_token(self, namespace: str, name: str) -> str:
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        body: Object = {"metadata": {"name": name}}
        code, answer = self.request("POST", accounts, body)
        assert code in {201, 409}, answer
        code, answer = self.request("POST", f"{accounts}/{name}/token", {"spec": {}})
        assert code == 201, answer
        return str(answer["status"]["token"])

    def kubeconfig(self, path: Path, token: str | None = None) -> Path:
        """Write a kubeconfig of the administrator, or of the holder of `token`."""
        cluster: Object = {"server": self.url}
        if self.ca_file:
            cluster["certificate-authority"] = str(self.ca_file)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token or self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    # -- plain HTTP ----------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: dict[str, str] | None = None,
        content_type: str = "application/json",
        token: str | None = None,
    ) -> tuple[int, Object]:
        """Send one request as the administrator (or by `token`); return code and JSON body."""
        with self._answer(method, path, body, params, content_type, token) as answer:
            data = answer.read(decode_content=True)
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, json.loads(data) if is_json else {"text": data.decode()}

    def watch(
        self, path: str, params: dict[str, str] | None = None, token: str | None = None
    ) -> Iterator[Object]:
        """Yield the events of one watch until the server ends it (timeoutSeconds in params)."""
        asked = {"watch": "true", **(params or {})}
        with self._answer("GET", path, None, asked, "application/json", token) as answer:
            if answer.status != 200:
                raise AssertionError(f"GET {path} {asked}: {answer.status} {answer.read()!r}")
            rest = b""
            for chunk in answer.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from map(json.loads, lines)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: object,
        params: dict[str, str] | None,
        content_type: str,
        token: str | None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        if self._pool is None:
            ca_certs = str(self.ca_file) if self.ca_file else None
            self._pool = urllib3.PoolManager(maxsize=8, retries=False, ca_certs=ca_certs)
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": content_type}
        answer = self._pool.request(
            method,
            self.url + path + ("?" + urlencode(params) if params else ""),
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=5.0, read=60.0),
        )
        try:
            yield answer
        finally:
            answer.close()
            answer.release_conn()

    # -- namespaces ----------------------------------------------------------

    def drop_namespace(self, name: str) -> None:
        """Delete a namespace and all in it, as the namespace controller would."""
        self.request("DELETE", f"/api/v1/namespaces/{name}")
        for collection in self._collections(name):
            self.request("DELETE", collection, {"gracePeriodSeconds": 0})
            for item in self.request("GET", collection)[1].get("items", []):
                path = f"{collection}/{item['metadata']['name']}"
                bare = {"metadata": {"finalizers": None}}
                self.request("PATCH", path, bare, content_type="application/merge-patch+json")
        code, body = self.request("GET", f"/api/v1/namespaces/{name}")
        if code == 200:
            body["spec"] = {"finalizers": []}
            self.request("PUT", f"/api/v1/namespaces/{name}/finalize", body)

    def _collections(self, namespace: str) -> Iterator[str]:
        groups = self.request("GET", "/apis")[1]["groups"]
        versions = [f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups]
        for version in ["/api/v1", *versions]:
            for row in self.request("GET", version)[1].get("resources", []):
                if row["namespaced"] and {"deletecollection", "list"} <= set(row["verbs"]):
                    yield f"{version}/namespaces/{namespace}/{row['name']}"

    # -- outages -------------------------------------------------------------

    def stop(self) -> None:
        """Break every connection and refuse new ones; what is stored stays."""
        raise NotImplementedError

    def start(self) -> None:
        """Answer again, at the same address."""
        raise NotImplementedError

    def restart(self, outage_seconds: float = 0.0) -> None:
        """Stop, wait, start; returns when the server is ready again."""
        self.stop()
        time.sleep(outage_seconds)
        self.start()

    def pause(self, seconds: float) -> None:
        """Return at once; for that long connections hang and are accepted, but none is answered."""
        raise NotImplementedError

    def close(self) -> None:
        for client in self._clients:
            client.close()  # type: ignore[no-untyped-call]
            client.rest_client.pool_manager.clear()
        self._clients.clear()
        if self._pool is not None:
            self._pool.clear()


class RealApiServer(ApiServer):
    """etcd and kube-apiserver on loopback ports, RBAC on, all files in one folder."""

    kind = "real"

    def __init__(self, assets: Path, folder: Path) -> None:
        super().__init__()
        self.assets, self.folder = assets, folder
        self.token = "test-administrator"  # noqa: S105 (a loopback server that lives for one test run)
        self.ca_file = folder / "ca.crt"
        self._etcd_port, self._peer_port, self._port = free_ports(3)
        self.url = f"https://127.0.0.1:{self._port}"
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None
        atexit.register(self.close)
        _write_keys(folder, self.token)
        self._etcd = self._run("etcd", *self._etcd_flags())
        self.start()

    def start(self) -> None:
        self._server = self._run("kube-apiserver", *self._server_flags())
        end = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            if time.monotonic() > end or self._server.poll() is not None:
                log = (self.folder / "kube-apiserver.log").read_text()[-2000:]
                raise RuntimeError(f"kube-apiserver is not ready:\n{log}")
            time.sleep(0.05)

    def stop(self) -> None:
        self._resume()
        _end(self._server, signal.SIGKILL)  # SIGTERM would wait for open watches

    def pause(self, seconds: float) -> None:
        self._resume()
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        self._timer = threading.Timer(seconds, self._continue)
        self._timer.start()

    def close(self) -> None:
        super().close()
        self.stop()
        _end(self._etcd, signal.SIGKILL)
        atexit.unregister(self.close)

    def _continue(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGCONT)

    def _resume(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._continue()
            self._timer = None

    def _is_ready(self) -> bool:
        try:
            return self.request("GET", "/readyz")[0] == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _run(self, program: str, *flags: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [str(self.assets / program), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _etcd_flags(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{p}" for p in (self._etcd_port, self._peer_port))
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _server_flags(self) -> list[str]:
        key = self.folder / "server.key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.folder}",
            f"--tls-cert-file={self.folder / 'server.crt'}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.ca_file}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            # no controller would make the default ServiceAccount that this plugin demands of pods
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'server.crt'}",
            f"--service-account-signing-key-file={key}",
        ]


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now; all are held until all are known."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports


def _write_keys(folder: Path, token: str) -> None:
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7"]
    ca = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test-ca"]
    ca += ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
    leaf = ["-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=kube-apiserver"]
    leaf += ["-keyout", "server.key", "-out", "server.crt"]
    leaf += ["-addext", f"subjectAltName={SERVER_SUBJECTS}", "-addext", "basicConstraints=CA:FALSE"]
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError("openssl is missing: the real API server needs a certificate")
    for arguments in (ca, leaf):
        command = [openssl, "req", "-x509", *new_key, *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _end(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(how)
        process.wait(timeout=10)
