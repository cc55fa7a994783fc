"""Graft: customise a language model on your documents by retrieval, tuning or both, and measure which wins."""
