"""What the suites share: fixtures that start real things, and the scripted provider."""
