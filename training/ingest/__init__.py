"""Real telemetry into the telemetry folder (PROTOCOL.md section 1), one source a module."""


class IngestError(ValueError):
    """A request that cannot be served, or a cache that belongs to another one."""
