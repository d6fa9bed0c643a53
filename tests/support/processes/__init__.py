"""Programs that tests start and talk to: a browser, and Python programs in forks of a server."""
