"""What sets teams off by itself: the clock, a webhook, the end of another team's run."""
