"""Engines: each a module with one public ``fit_*``. No engine knows a family."""
