"""The chassis every room stands on: server, client, identity, errors, settings, telemetry, drain."""

import os

# gRPC reads it when it is first imported: its older I/O takes fewer threads per message (docs/adr/0010).
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
