"""The whole mesh on one machine: real stores, real Envoy, six services, one supervisor."""
