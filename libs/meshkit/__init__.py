"""The chassis every room stands on: server, client, identity, errors, settings, telemetry, drain."""
