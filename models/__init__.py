"""Pure maths: frames, forecasts, latency, capacity, lead time, artifacts. Imports nothing of ours."""
