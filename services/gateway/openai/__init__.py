"""OpenAI's REST API: its JSON decoded and checked, its JSON and event streams written."""
