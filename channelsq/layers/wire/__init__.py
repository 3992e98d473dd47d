"""The wire formats: packing, signatures and envelopes."""
