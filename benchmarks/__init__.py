"""Measurements: xee_tf beside what one would use instead, and beside what the hardware gives."""
