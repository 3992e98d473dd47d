"""The metrics of an interface server, for tests."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """One scrape of ``/-/metrics``.

    Args:
        url: the server's.
        timeout: seconds.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        response = httpx.get(url + "/-/metrics", timeout=timeout, trust_env=False)
        assert response.status_code == 200, response.text
        self.text = response.text
        self.families = {each.name: each for each in text_string_to_metric_families(response.text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def values(self, name: str, **labels: str) -> list[float]:
        """The values of a metric's samples that have these labels, and perhaps others."""
        name = "channelsq_" + name
        return [each.value for each in self._samples if each.name == name and each.labels.items() >= labels.items()]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of them; 0 if there are none."""
        return sum(self.values(name, **labels))
