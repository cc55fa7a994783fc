"""bytes of one file -> Document, one format per module, each read in a sandboxed process."""
