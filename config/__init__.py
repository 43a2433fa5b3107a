"""Floor 1: settings, the catalog of tiers, models and kinds, and the queues."""
