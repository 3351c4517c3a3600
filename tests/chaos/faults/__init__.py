"""Single faults, each a named procedure under load: what clients see, what is lost, how long until it works again."""
