"""Masked hard instance mining (MHIM-MIL)."""
