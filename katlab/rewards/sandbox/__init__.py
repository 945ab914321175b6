"""The sandbox that candidates' code runs in: `isolation` chooses one, `runner` runs jobs in it."""
