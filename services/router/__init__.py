"""The router: who answers a prompt, and what when they fail."""
