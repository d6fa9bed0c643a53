"""Preference data: from files and hub datasets to cleaned pairs."""
