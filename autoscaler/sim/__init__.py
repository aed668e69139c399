"""A seeded, pure simulator of a vLLM fleet: requests in, the observations of PROTOCOL section 3 out."""
