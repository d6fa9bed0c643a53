"""Errors, command lines, files, locks and other things that no stage is about."""
