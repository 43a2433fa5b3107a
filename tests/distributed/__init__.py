"""Two hosts on one machine: a broker and a database on one, workers and commands on the other."""
