"""durable work: queued, run, followed, paused, resumed after a crash.

It does not know what any kind of job does.
"""
