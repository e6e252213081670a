"""Jobs: plan, states, leases, hints."""
