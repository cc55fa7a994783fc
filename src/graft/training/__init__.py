"""examples -> a tuned model: encode, train, merge, export, prove parity.

It does not know workspaces or how anything is shown.
"""
