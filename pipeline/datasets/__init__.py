"""Datasets: the rendered demo, and importers of the public benchmarks."""
