"""train, prove, register: examples -> a tuned model with its card.

The one place that joins training, evaluation and the store. It does not know how anything is shown.
"""
