"""The report, the summary and the cards."""
