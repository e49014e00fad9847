"""What a service does while it is under load: calls it ended, CPU it used."""

from __future__ import annotations

from urllib.request import urlopen

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.load.rpcs import Rpc


class Served:
    """What the service itself counts of an RPC: h2load does not see gRPC statuses."""

    def __init__(self, metrics_url: str, rpc: Rpc) -> None:
        self._url = metrics_url
        service, _, method = rpc.config["call"].partition("/")
        self._labels = {"grpc_service": service, "grpc_method": method}
        self._before = self._counts()

    def since(self) -> dict[str, int]:
        """Calls ended since the start, by status."""
        ended = {code: count - self._before.get(code, 0) for code, count in self._counts().items()}
        return {code: count for code, count in ended.items() if count}

    def _counts(self) -> dict[str, int]:
        with urlopen(self._url, timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return {
            sample.labels["grpc_code"]: int(sample.value)
            for family in families
            for sample in family.samples
            if sample.name == "grpc_server_handled_total" and self._labels.items() <= sample.labels.items()
        }


class Busy:
    """CPU of the process behind a port, its children included."""

    def __init__(self, address: str) -> None:
        parent = psutil.Process(_listener(int(address.rpartition(":")[2])))
        self._processes = [parent, *parent.children(recursive=True)]
        self._before = self._seconds()

    def milliseconds(self) -> float:
        """CPU used since the start."""
        return (self._seconds() - self._before) * 1000

    def _seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)


def _listener(port: int) -> int:
    """The process that listens on a port."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", None) == port
        if listens and connection.pid:
            return connection.pid
    raise ProcessLookupError(f"no process of ours listens on port {port}")
