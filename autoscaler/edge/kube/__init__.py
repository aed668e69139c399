"""The Kubernetes edge: what is read of the cluster and what is written to it."""
