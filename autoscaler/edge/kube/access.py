"""Where the API server is and who we are: the pod's own account, else a kubeconfig."""

from pathlib import Path

from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException

from autoscaler.edge.kube.errors import KubeInvalid


def configured(kubeconfig: Path | None, context: str | None) -> Configuration:
    """Return the client's settings; KubeInvalid with what was tried."""
    settings = Configuration()
    try:
        _configure(settings, kubeconfig, context)
    except (ConfigException, OSError, ValueError) as error:
        raise KubeInvalid(f"no way to the API server: {error}", reason="Invalid") from error
    return settings


def _configure(settings: Configuration, kubeconfig: Path | None, context: str | None) -> None:
    """Fill in the pod's own account, or what the kubeconfig says if one is named or we are no pod."""
    outside = ""
    if kubeconfig is None and context is None:
        try:
            config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            outside = f"not in a pod ({error}), and "
        else:
            return
    file = str(kubeconfig) if kubeconfig is not None else None
    try:
        config.load_kube_config(file, context, settings, persist_config=False)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise ConfigException(f"{outside}{error}") from error
