"""The embedded generator of demo preference data."""
