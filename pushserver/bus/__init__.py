"""Everything that lives in Redis: newest states, delivery channels, the schedule, revocations."""
