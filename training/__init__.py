"""Offline jobs: telemetry in, backtested and gated models out."""
