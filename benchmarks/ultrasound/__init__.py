"""Measurements of ``pipelines.ultrasound``: studies on the phantom, speed, memory."""
