"""Phantom study: synthetic ultrasound cines with an organ, look-alikes and three observers, made by code."""
