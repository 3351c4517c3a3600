"""The scenarios, each by its name on the command line."""
