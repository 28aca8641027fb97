"""Benchmarks that compare xee_tf with alternatives and with the limits of the hardware."""
