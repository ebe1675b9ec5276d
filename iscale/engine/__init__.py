"""The engine: plans of regions, drivers that run them, and the ledger of what is done."""
