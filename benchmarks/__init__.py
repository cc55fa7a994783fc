"""Graft and its peers on the same work, on the same machine, interleaved. `make bench` runs run.sh."""
