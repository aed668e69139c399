"""All online I/O: what comes in becomes core values, what goes out was decided by the core."""
