"""What a layer keeps beside messages: groups, who lives, which runs have begun, the time."""
