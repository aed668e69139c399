"""Self-contained HTML pages: the look that all reports share, and the backtest's report."""
