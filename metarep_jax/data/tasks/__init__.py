"""Tasks: few-shot episodes drawn from pools, and those made without labels."""
