"""What `uptier doctor` looks at: the machine, the software, weights, keys, broker and ledger."""
