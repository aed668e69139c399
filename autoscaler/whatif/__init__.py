"""What-if: scenarios, rival autoscalers, runs over the simulator, reports."""
