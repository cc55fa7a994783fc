"""arms x questions -> one report: which is better, by how much, how fast and for how much money.

    values.py                     what an experiment leaves behind                  <- START READING HERE
    asked.py  arms.py             the questions that may be asked; who answers them
    running.py  measuring.py      every reply, kept; replies -> figures, pairs, a verdict
    report*.py                    the same values for a terminal, a browser, a pull request

It does not know how workspaces are opened.
"""
