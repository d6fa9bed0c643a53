"""The scorer behind HTTP."""
