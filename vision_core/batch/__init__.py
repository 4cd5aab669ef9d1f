"""Batch prediction: job, plan, engine, ledger, tables."""
