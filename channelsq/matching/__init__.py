"""How routes look at messages: regular expressions on values, and what is known of their outcome."""
