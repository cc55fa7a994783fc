"""answers and references -> metrics with paired intervals; a model against its base.

It does not know how a model was made.
"""
