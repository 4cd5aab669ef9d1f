"""Many inputs through one predictor: job, plan, engine, ledger, tables."""
