"""Counting and measuring: multiply-adds, throughput, latency, memory, energy."""
