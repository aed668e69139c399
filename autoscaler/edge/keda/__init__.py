"""The KEDA external scaler: serves the last decision of each policy, decides nothing."""
