"""The one place that names this tracker's version."""

__version__ = "1.0.0"
TRACKER_VERSION = f"spoorway-py-{__version__}"
"""What events carry as `tv`."""
