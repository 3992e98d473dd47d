"""The scripts that Redis runs; each says what its keys are."""
