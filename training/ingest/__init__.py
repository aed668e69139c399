"""Real telemetry into the telemetry folder (PROTOCOL.md section 1), one source a module."""
