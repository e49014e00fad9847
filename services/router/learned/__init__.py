"""Learning from outcomes which deployment suits which prompt: a contextual bandit."""
