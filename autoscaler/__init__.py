"""The online controller, its simulator and the what-if reports."""
