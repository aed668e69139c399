"""Where the API server is and who we are: the pod's own account, else a kubeconfig."""

from pathlib import Path

from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from autoscaler.edge.kube.errors import KubeInvalid

NOT_USABLE = (ConfigException, OSError, ValueError, TypeError, AttributeError, YAMLError)


def configured(kubeconfig: Path | None, context: str | None) -> Configuration:
    """Return the client's settings: the kubeconfig's if one is named or this is no pod; KubeInvalid."""
    settings = Configuration()
    tried = ""
    if kubeconfig is None and context is None:
        try:
            config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
        except NOT_USABLE as error:
            tried = f"not in a pod ({error}), and "
        else:
            return settings
    file = None if kubeconfig is None else str(kubeconfig)
    try:
        config.load_kube_config(file, context, settings, persist_config=False)  # type: ignore[no-untyped-call]
    except NOT_USABLE as error:  # what a broken file does to the library
        told = " ".join(str(error).split())
        raise KubeInvalid(
            f"no way to the API server: {tried}kubeconfig {file or '(default)'}: {told}",
            reason="Invalid",
        ) from error
    return settings
